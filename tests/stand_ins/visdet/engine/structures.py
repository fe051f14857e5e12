class InstanceData:
    """Fields of the same length as attributes."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __len__(self):
        return len(next(iter(self.__dict__.values()), ()))

    def __contains__(self, name):
        return name in self.__dict__
