"""Stage 2: students (and, without pretrained weights, teachers) trained from shards."""
