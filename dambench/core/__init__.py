"""What every part knows:
configuration, events, protocols, names, errors, files, units. No torch, no SQL, no Textual.
"""
