"""A stand-in for a QEMU: a catalogue of its commands and types, and registers of its parts."""
