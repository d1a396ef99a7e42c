"""What LLaVA-1.5's own code writes around questions and answers (conversation `vicuna_v1` of github.com/haotian-liu/LLaVA)."""

LLAVA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAVA_TEMPLATE = (
    "{%- macro said(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- set here = namespace(first=true) -%}"
    "{%- for part in content -%}{%- if part['type'] == 'image' -%}{{ '<image>\\n' if here.first else '<image>' }}"
    "{%- else -%}{%- set here.first = false -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
    "{%- for message in messages -%}{%- if loop.first and message['role'] != 'system' -%}{{ '"
    + LLAVA_SYSTEM.replace("'", "\\'")
    + " ' }}"
    "{%- endif -%}"
    "{%- if message['role'] == 'system' -%}{{ said(message['content']) + ' ' }}"
    "{%- elif message['role'] == 'user' -%}{{ 'USER: ' + said(message['content']) + ' ' }}"
    "{%- else -%}{{ 'ASSISTANT: ' + said(message['content']) + '</s>' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)
"""Pictures stand where the user put them; those that come first have a line each, as in its training data."""
