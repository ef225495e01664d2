"""Cache a teacher's labels once, then train distilled students from them without the teacher."""

__version__ = "0.1.0"
