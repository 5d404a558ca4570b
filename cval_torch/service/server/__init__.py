"""A server of one's own, which a client cannot tell from cval.ai: `create_app`, `Limits`, `cval-torch serve`.

It needs the extra `server`, so nothing is imported from here before it is used.
"""
