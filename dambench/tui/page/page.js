// The page may have been reached through another port (ssh -L): the console is where the page came from.
document.getElementById("terminal").dataset.sessionWebsocketUrl = `ws://${window.location.host}/ws`;
