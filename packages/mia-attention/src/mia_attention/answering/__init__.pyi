from .part_answers import PartPrompt as PartPrompt
