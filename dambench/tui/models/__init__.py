"""What the screens show, without a screen: Textual is not imported here."""
