"""A PESTO service that runs: asking it, and testing what it answers by the rules of upstream's own tester.

::

    payload   files of a test -> what is sent, and what is expected
    client    one service, asked over whatever connection
    serving   a service started in a cell
    pictures  are two encoded images the same picture?
    compare   expected and actual values -> differences
    suite     a project's tests: read, run
    report    the verdict as text, JSON, JUnit XML
"""
