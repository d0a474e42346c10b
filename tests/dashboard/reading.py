"""What pages say, without a browser."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

OpenApp = Callable[..., AppTest]


def html(app: AppTest) -> str:
    return "\n".join(str(element.proto.body) for element in app.get("html"))


def texts(app: AppTest) -> str:
    """Everything that was written with ``st.text`` and ``st.code``."""
    return "\n".join([*(text.value for text in app.text), *(code.value for code in app.code)])


def markup(app: AppTest) -> str:
    """Everything that the browser would interpret."""
    found = [*app.markdown, *app.caption, *app.title, *app.subheader, *app.header]
    boxes = [*app.warning, *app.error, *app.info, *app.success]
    return "\n".join(str(element.value) for element in [*found, *boxes])


def warnings(app: AppTest) -> str:
    return "\n".join(str(box.value) for box in app.warning)


def assert_clean(app: AppTest) -> None:
    assert not app.exception, [box.value for box in app.exception]
    assert not app.error, [box.value for box in app.error]
