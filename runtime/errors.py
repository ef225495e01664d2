"""What is wrong with what a user gave, as facts; commands make the line that is printed of it."""


class InputError(ValueError):
    """Bad input: where it lies, what was expected there, what was found, and what mends it, each in words.

    `where` is a parameter's name, or a file, a shard, a key. Parameters of ours that mend it stand between backticks
    (`epochs`, `amp=False`), which a command prints as its options.
    """

    exit_code = 2

    def __init__(self, where: object, expected: str = "", found: object = "", remedy: str = "") -> None:
        """A text alone is what torch's DataLoader makes of an error in one of its processes: our line ends it."""
        if not expected and "\n" in str(where):
            where = str(where).strip().rpartition("\n")[2].partition(f"{type(self).__name__}: ")[2] or where
        super().__init__(where, expected, found, remedy)  # all of them, so that it comes whole out of a worker
        self.where, self.expected, self.found, self.remedy = str(where), expected, found, remedy

    def __str__(self) -> str:
        """Return `where: expected ..., found ...; remedy`, without the parts that are empty."""
        if not self.expected:
            return self.where
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{place}expected {self.expected}, found {self.found}{remedy}"

    def within(self, where: str, remedy: str = "") -> "InputError":
        """Return the same error, seen from further out: in `where`, mended by `remedy` if that was not known."""
        place = f"{where}, {self.where}" if self.where else where
        return type(self)(place, self.expected, self.found, self.remedy or remedy)


def require_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise InputError about parameter `name` for what is no whole number, or out of its range."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        up_to = "or more" if high is None else f"to {high}"
        raise InputError(f"`{name}`", f"a whole number, {low} {up_to}", repr(value))
