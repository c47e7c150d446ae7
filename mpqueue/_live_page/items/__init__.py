"""The items of a job, as a viewer asks for them: a page of the list, the groups of failures, one item, its picture.

All of it runs on threads beside the page's event loop (`mpqueue._live_page.aside`), for it may run code of users.
"""
