"""Whether a model can be had from the Hugging Face hub, found out in seconds."""

from __future__ import annotations

import logging

from mia_augment import ModelError

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer; `from_pretrained` by itself retries for a minute or more."""


def only_stored(name: str) -> bool:
    """Whether a model has to be taken from the files stored on this machine, because the hub cannot be reached.

    Raises:
        ModelError: the hub cannot be reached, and nothing of the model is stored.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline_mode():
        return True
    stored = isinstance(try_to_load_from_cache(name, "config.json"), str)
    try:
        HfApi().model_info(name, timeout=TIMEOUT)
    except HfHubHTTPError:  # it answered; loading says what is wrong
        return False
    except Exception as error:  # whatever the transport raises, which depends on the version
        if stored:
            logger.warning("model %s: the hub cannot be reached, taking the files stored on this machine", name)
            return True
        raise ModelError(
            f"model {name}: not stored on this machine, and the Hugging Face hub cannot be reached ({error}); "
            "give a folder, fetch it where there is a network (`hf download`), or set HF_ENDPOINT to a mirror"
        ) from error
    return False
