"""What a device manager runs on."""
