"""What can be said of an image, for others to check: what is in it, what it was made of, how two of them differ.

Everything is read from the image itself; its lock, where it is at hand, adds the pins. No module here prints, asks the
clock or looks at the machine: the same image has the same bill of materials whoever writes it, whenever.
"""
