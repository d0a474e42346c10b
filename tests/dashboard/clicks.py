"""Clicks on pages without a browser."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from tests.dashboard.reading import assert_clean


def press(app: AppTest, label: str, at: int = 0) -> AppTest:
    """Click the button of that name."""
    app = [found for found in app.button if found.label == label][at].click().run()
    assert_clean(app)
    return app


def confirm(app: AppTest) -> AppTest:
    """Click what the open dialog asks for."""
    app = app.get_by_key("dialog_yes").click().run()
    assert_clean(app)
    return app


def labels(app: AppTest) -> set[str]:
    """Names of all buttons."""
    return {found.label for found in app.button}


def toasts(app: AppTest) -> str:
    """What was said in passing."""
    return "\n".join(str(toast.value) for toast in app.toast)


def link_of(app: AppTest, name: str) -> str | None:
    """A value in the address of the page."""
    if name not in app.query_params:
        return None
    found = app.query_params[name]
    return found[0] if isinstance(found, list) else found
