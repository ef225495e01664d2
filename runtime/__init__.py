"""The machine that everything runs on: files, processes, devices. Nothing here knows what distillation is."""
