"""What a machine has besides memory: a catalogue of a QEMU's, and registers of what is in it."""
