"""Exercise 7: route a request, or refuse it clearly.

Write ``route(request, adapters, longest)``. ``request`` is what came in as JSON, ``adapters`` the
names that are loaded, ``longest`` the most characters a text may have. Return (status, message):

    422  the request is no dict with a non-empty string `text` and a string `adapter`
    404  no such adapter; the message names the one asked for and all that are there
    413  the text is too long; the message names its length and the limit
    200  all is well; the message is the adapter's name

Check in this order.
"""


def route(request, adapters, longest):
    raise NotImplementedError("write route() in this file")
