"""The items of a job for viewers: a page of the list, the groups of failures, one item, its picture.

All of it runs on threads beside the page's event loop (`mpqueue._live_page.aside`), since it may run users' code.
"""
