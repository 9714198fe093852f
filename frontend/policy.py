"""What a browser must keep the page from: its Content-Security-Policy and Permissions-Policy."""

_OFF = (
    *("accelerometer", "autoplay", "bluetooth", "browsing-topics", "camera", "clipboard-read"),
    *("display-capture", "encrypted-media", "fullscreen", "gamepad", "geolocation", "gyroscope"),
    *("hid", "identity-credentials-get", "idle-detection", "local-fonts", "magnetometer"),
    *("microphone", "midi", "otp-credentials", "payment", "picture-in-picture"),
    *("publickey-credentials-create", "publickey-credentials-get", "screen-wake-lock", "serial"),
    *("storage-access", "usb", "window-management", "xr-spatial-tracking"),
)
PERMISSIONS = ", ".join((*(f"{name}=()" for name in _OFF), "clipboard-write=(self)"))


def content(server: str = "", served: bool = True) -> str:
    """The policy of a page that speaks to `server`, an origin; without one, to whom it came from.
    One that is not `served` by us says it itself, in a <meta>, which knows no frame-ancestors.
    """
    # 'self' is also the WebSocket there, in every browser of the last years; of others it is not.
    there = ("'self'", server, "ws" + server.removeprefix("http")) if server else ("'self'",)
    rules = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src blob:",
        f"connect-src {' '.join(there)}",
        f"frame-src {' '.join(there[:2])}",
        "font-src 'none'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        *(["frame-ancestors 'none'"] if served else []),
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    return "; ".join(rules)
