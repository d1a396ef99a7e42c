"""Whether a model can be had from the Hugging Face hub, found out in seconds."""

from __future__ import annotations

import logging

from mia_augment import ModelError

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer; `from_pretrained` by itself retries for a minute or more."""


class NotReachable(ModelError):
    """A model cannot be had now, whatever it is: nothing of it is stored here, and the hub does not answer."""


def only_stored(name: str) -> bool:
    """Whether a model has to be taken from the files stored on this machine, because the hub cannot be reached.

    Raises:
        NotReachable: the hub cannot be reached, and nothing of the model is stored.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    stored = isinstance(try_to_load_from_cache(name, "config.json"), str)
    if is_offline_mode():
        if not stored:
            raise NotReachable(
                f"model {name}: not stored on this machine, and HF_HUB_OFFLINE forbids asking the Hugging Face hub; "
                f"give a folder, or `hf download {name}` where there is a network"
            )
        return True
    try:
        HfApi().model_info(name, timeout=TIMEOUT)
    except HfHubHTTPError:  # it answered; loading says what is wrong
        return False
    except Exception as error:  # whatever the transport raises, which depends on the version
        if stored:
            logger.warning("model %s: the hub cannot be reached, taking the files stored on this machine", name)
            return True
        raise NotReachable(
            f"model {name}: not stored on this machine, and the Hugging Face hub cannot be reached ({error}); "
            "give a folder, fetch it where there is a network (`hf download`), or set HF_ENDPOINT to a mirror"
        ) from error
    return False
