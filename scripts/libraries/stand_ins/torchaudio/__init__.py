"""A stand-in for torchaudio."""

from stand_in import stand_in

stand_in("torchaudio", "2.0.0")
