"""Programs of this host that clients call by name."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.host.plugins.protocol import PluginFailedError, PluginMissingError, PluginRefusedError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack

ORIGINATOR = 256
"""Characters of a session's originator that are kept."""


@implements("host.call_plugin")
async def call_plugin(stack: Stack, context: Context, host: Ref, plugin: str, fn: str, args: Mapping[str, str]) -> str:
    """The text that the plugin's function returns. Cancelling ends the plugin.

    It gets a session of the caller's account, which ends with it. Raises XENAPI_MISSING_PLUGIN, XENAPI_PLUGIN_FAILURE,
    and whatever error the plugin answers with.
    """
    stack.database.row("host", host)
    with stack.sessions.lend(context.caller.account, f"plugin {plugin}"[:ORIGINATOR]) as session:
        try:
            with context.task.cancellable():
                return await stack.plugins.call(plugin, fn, session.ref, args)
        except PluginMissingError as error:
            raise ApiError("XENAPI_MISSING_PLUGIN", plugin) from error
        except PluginRefusedError as error:
            raise ApiError(*error.description) from error
        except PluginFailedError as error:
            raise ApiError("XENAPI_PLUGIN_FAILURE", error.status, error.stdout, error.stderr) from error
