def print_log(text, logger=None, level=None):
    print(text)
