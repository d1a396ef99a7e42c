"""`mia quickstart`: drawn pictures with known answers, and the settings that suit the embedded model."""
