"""papermill's way to run a notebook, with a watch on what runs."""

import asyncio
import inspect
from typing import Any

import nbformat
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from helpers.tools.kernel import Kernel
from helpers.tools.watch import Watch
from helpers.tools.work import Work, usual_of

SAVE_EVERY = 5.0  # seconds


class WatchedClient(PapermillNotebookClient):
    """papermill's client, which tells a watch what runs. seconds: filled, those of each cell by its id."""

    def __init__(
        self, nb_man: Any, watch: Watch, usual: dict[str, Any], limit: float, seconds: dict[str, float], **options: Any
    ) -> None:
        super().__init__(nb_man, **options)
        self.watch, self.usual, self.limit, self.seconds = watch, usual, limit, seconds
        self.kernel = Kernel(self._interrupt)
        code = [index for index, cell in enumerate(self.nb.cells) if runs_code(cell)]
        self.names = {index: f"cell {number}/{len(code)}" for number, index in enumerate(code, 1)}

    def papermill_execute_cells(self) -> None:
        """Greet the kernel, then run the cells."""
        try:
            self.wait_for_reply(self.kc.execute(self.kernel.greeting, silent=True, store_history=False))
            self.kernel.greeted()
            super().papermill_execute_cells()
        finally:
            self.kernel.close()

    def execute_cell(self, cell: nbformat.NotebookNode, cell_index: int, **options: Any) -> nbformat.NotebookNode:
        """Run a cell under the watch."""
        if not runs_code(cell):
            return super().execute_cell(cell, cell_index, **options)
        usual = usual_of(self.usual, cell.get("id"))
        self.watch.begin(Work(self.names[cell_index], cell.source, usual, self.limit, self.kernel))
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self.seconds[cell.get("id")] = self.watch.end()

    def process_message(self, *message: Any, **options: Any) -> nbformat.NotebookNode | None:
        """Handle a message of the kernel; what it prints can be followed."""
        output = super().process_message(*message, **options)
        if output is not None and output.output_type == "stream":
            self.watch.work.hear(output.text)
        return output

    def _interrupt(self) -> None:
        done = self.km.interrupt_kernel()
        if inspect.isawaitable(done):
            asyncio.run(done)


class WatchedEngine(NBClientEngine):
    """papermill's own engine with `WatchedClient` in it; the notebook is saved every few seconds, not twice a cell.

    Of a notebook with figures, papermill's 170 saves take as long as its shorter cells.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, start_timeout: int = 60, **options: Any) -> None:
        """Run the notebook that papermill has prepared."""
        options.pop("input_path", None)
        save = nb_man.save

        def save_seldom(**options: Any) -> None:
            if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVE_EVERY:
                save(**options)

        nb_man.save = save_seldom
        try:
            WatchedClient(nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, **options).execute()
        finally:
            nb_man.save = save  # papermill's last one, whatever has happened


papermill_engines.register("watched", WatchedEngine)


def runs_code(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is code and not empty."""
    return cell.cell_type == "code" and bool(cell.source.strip())
