"""A stand-in for torchvision."""

from stand_in import stand_in

stand_in("torchvision", "0.99.0")
