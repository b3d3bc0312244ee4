"""The demo, told on the terminal."""

import asyncio
import threading
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ducto_redis.cli.demo.interruption import Interruption, find_interruption
from ducto_redis.cli.demo.machinery import NAMESPACE, Machinery
from ducto_redis.cli.demo.proof import SUMS, AccountProof, Proof, prove
from ducto_redis.cli.demo.setting import CUSTOMERS, FORMULAS, LARGE, PRICING, Customer
from ducto_redis.cli.demo.traffic import Tally, Traffic, drive_traffic
from ducto_redis.cli.demo.web_app import RequestCount, make_app
from ducto_redis.cli.demo.web_server import WebServer
from ducto_redis.display import format_credits
from ducto_redis.money import from_micro

_INDENT = 15


class Outcome(Struct, frozen=True):
    """The demo's outcome.

    Attributes:
        traffic: what the customers' clients saw.
        arrived: requests that reached the server.
        interruption: what the customer that hung up was charged; None where nobody did.
        proof: whether everything adds up.
    """

    traffic: Traffic
    arrived: int
    interruption: Interruption | None
    proof: Proof

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "proof_holds": self.proof.holds,
            "requests": {"sent": self.traffic.sent, "arrived": self.arrived},
            "accounts": [self._account(account) for account in self.proof.accounts],
            "ledger": {"accounts": self.proof.report.accounts, "entries": self.proof.report.entries},
        }

    def _account(self, account: AccountProof) -> dict[str, Any]:
        tally = self.traffic.tallies.get(account.account, Tally())
        return {
            "account": account.account,
            "added": from_micro(account.added),
            "charged": from_micro(account.charged),
            "held": from_micro(account.held),
            "available": from_micro(account.balance - account.held),
            "answered": tally.answered,
            "refused": tally.refused,
            "entries": account.entries,
            "recomputed_balance": from_micro(account.recomputed),
            "engine_balance": from_micro(account.balance),
            "holds": account.holds,
        }


class Story:
    """Tells the demo.

    Args:
        console: where it is told.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def run(self, *, serve: bool = False) -> Outcome:
        """Start everything, let the customers act, stop, and prove what happened.

        Args:
            serve: let whoever reads this be the customers, until Ctrl-C.
        """
        self._title()
        with Machinery() as machinery:
            self._engine_runs(machinery)
            self._publish(machinery)
            self._top_up(machinery)
            count = RequestCount()
            with WebServer(count.wrap(make_app(machinery.new_manager()))) as server:
                traffic = self._serve(machinery, server) if serve else self._drive(server)
            # The server has shut down, and with it the application's manager: every charge is made.
            return self._conclude(machinery, traffic, count, serve=serve)

    def _title(self) -> None:
        self._console.print("[bold]ducto-redis[/]: a metered LLM endpoint, end to end")
        self._console.print("Credits are held before a model is called, and charged for what it used.\n")

    def _engine_runs(self, machinery: Machinery) -> None:
        self._step("The engine", f"{machinery.server_version} from PyPI, in a temporary folder")
        self._step("The ledger", "SQLite, written by a ledger worker that reads the engine's journal")

    def _publish(self, machinery: Machinery) -> None:
        published = machinery.manager.publish_pricing(PRICING)
        formula = FORMULAS[LARGE]
        self._step("The prices", f"a pricing document, version {published.version}; in it")
        self._more(f"{LARGE}: {formula}".replace(" + ", "\n  + "))

    def _top_up(self, machinery: Machinery) -> None:
        for customer in CUSTOMERS:
            machinery.manager.add_credits(customer.account, customer.credits, idempotency_key="top-up")
        added = ", ".join(f"{customer.account} {format_credits(customer.credits)}" for customer in CUSTOMERS)
        self._step("The credits", added)

    def _drive(self, server: WebServer) -> Traffic:
        self._step("The endpoint", f"{server.url}/v1/chat/completions")
        self._more("a Starlette app behind MeteringMiddleware, with a stand-in model")
        self._step("The customers", "the real openai client, plain and streamed, many at once")
        self._console.print()
        with Progress(
            TextColumn("  {task.description:<6}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        ) as progress:
            bars = {it.account: progress.add_task(it.account, total=it.requests, note="") for it in CUSTOMERS}

            def on_progress(customer: Customer, tally: Tally) -> None:
                notes = [f"{tally.refused} refused (402)"] if tally.refused else []
                notes += ["hung up mid-stream"] if tally.hung_up_after else []
                progress.update(bars[customer.account], advance=1, note=", ".join(notes))

            return asyncio.run(drive_traffic(server.url, CUSTOMERS, on_progress))

    def _serve(self, machinery: Machinery, server: WebServer) -> Traffic:
        ada, ben, *_ = CUSTOMERS
        self._step("The endpoint", "is up. Try, in another terminal:")
        for what, customer, rest in (
            ("an answer; see x-credits-charged and x-credits-remaining", ada, '"max_tokens": 50'),
            ("a stream", ada, '"max_tokens": 50, "stream": true'),
            ("more than ben can pay: 402", ben, '"max_tokens": 5000'),
        ):
            self._console.print(f"\n[dim]# {what}[/]")
            self._as_typed(
                f"curl -i {server.url}/v1/chat/completions \\\n"
                f"  -H 'Authorization: Bearer {customer.api_key}' \\\n"
                f"  -H 'Content-Type: application/json' \\\n"
                f"""  -d '{{"model": "{LARGE}", {rest},\n"""
                """       "messages": [{"role": "user", "content": "Hi"}]}'"""
            )
        self._console.print("\n[dim]# what the engine and the ledger say[/]")
        self._as_typed(
            f"export DUCTO_REDIS_URL={machinery.redis_url}\n"
            f"export DUCTO_LEDGER_URL={machinery.ledger_url}\n"
            f"export DUCTO_NAMESPACE={NAMESPACE}\n"
            f"ducto balance {ada.account}\n"
            "ducto ledger verify"
        )
        self._console.print("\nCtrl-C stops it, and proves what you did.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            self._console.print()
        return Traffic()

    def _conclude(self, machinery: Machinery, traffic: Traffic, count: RequestCount, *, serve: bool) -> Outcome:
        accounts = [customer.account for customer in CUSTOMERS]
        proof = prove(machinery.manager, machinery.ledger, machinery.ledger_file, accounts)
        interruption = None
        if not serve:
            leaver = next(customer for customer in CUSTOMERS if customer.hangs_up)
            interruption = find_interruption(machinery.ledger, NAMESPACE, leaver.account)
            self._tell_refusals(traffic, count)
            self._tell_interruption(leaver, traffic, interruption)
        outcome = Outcome(traffic, count.arrived, interruption, proof)
        self._tell_accounts(outcome, serve=serve)
        self._tell_proof(proof)
        return outcome

    def _tell_refusals(self, traffic: Traffic, count: RequestCount) -> None:
        self._console.print()
        for account, tally in traffic.tallies.items():
            if tally.refused:
                self._console.print(f"[bold]{account} ran dry[/]: {tally.refused} of {tally.sent} requests got 402.")
                self._more(f'"{tally.refusal}"', style="italic")
                retried = count.arrived - traffic.sent
                self._more(f"The client raised at once: {retried} retries reached the server.")

    def _tell_interruption(self, leaver: Customer, traffic: Traffic, interruption: Interruption | None) -> None:
        if interruption is None:
            return
        chunks = traffic.tallies[leaver.account].hung_up_after
        self._console.print(f"[bold]{leaver.account} hung up[/] after {chunks} chunks of a stream.")
        self._more(
            f"Charged for what was delivered: {format_credits(from_micro(interruption.charged))} of"
            f" {format_credits(from_micro(interruption.held))} held; flags: {', '.join(interruption.flags)}."
        )

    def _tell_accounts(self, outcome: Outcome, *, serve: bool) -> None:
        table = _table()
        table.add_column("account")
        for title in ("added", "charged", "held", "available"):
            table.add_column(title, justify="right")
        if not serve:
            table.add_column("answered", justify="right")
            table.add_column("refused", justify="right")
        for it in outcome.proof.accounts:
            cells = [it.account]
            cells += [
                format_credits(from_micro(micro)) for micro in (it.added, it.charged, it.held, it.balance - it.held)
            ]
            if not serve:
                tally = outcome.traffic.tallies[it.account]
                cells += [str(tally.answered), str(tally.refused)]
            table.add_row(*cells)
        self._console.print()
        self._console.print(table)

    def _tell_proof(self, proof: Proof) -> None:
        self._console.print("\n[bold]The proof[/]: every balance again, from the SQL ledger alone\n")
        self._console.print(Text(_quoted(SUMS), style="dim"))
        self._console.print()
        table = _table()
        table.add_column("account")
        for title in ("entries", "seq", "recomputed", "the engine's", "difference"):
            table.add_column(title, justify="right")
        table.add_column("")
        for it in proof.accounts:
            table.add_row(
                it.account,
                str(it.entries),
                f"1..{it.last_seq}" if it.gapless else "has gaps",
                f"{from_micro(it.recomputed):f}",
                f"{from_micro(it.balance):f}",
                format_credits(from_micro(it.recomputed - it.balance)),
                "[green]equal[/]" if it.holds else "[bold red]NOT EQUAL[/]",
            )
        self._console.print(table)
        report = proof.report
        self._console.print(
            f"\nducto ledger verify: {report.accounts} accounts, {report.entries} entries,"
            f" {report.failed} that do not add up;\none account keeps the pricing documents"
        )
        for failure in report.failures:
            self._console.print(Text(f"  {failure.account}: {'; '.join(failure.reasons)}"))
        if proof.holds:
            self._console.print("\n[bold green]The proof holds[/], to the last micro-credit.")
        else:
            self._console.print("\n[bold red]The proof does not hold.[/]")

    def _step(self, what: str, detail: str) -> None:
        self._indented(Text(detail), Text(f"{what:<{_INDENT}}", style="bold"))

    def _more(self, detail: str, style: str = "") -> None:
        self._indented(Text(detail, style=style), Text(" " * _INDENT))

    def _indented(self, detail: Text, first: Text) -> None:
        for line in detail.wrap(self._console, self._console.width - _INDENT):
            line.rstrip()
            self._console.print(first + line)
            first = Text(" " * _INDENT)

    def _as_typed(self, text: str) -> None:
        # Neither wrapped nor highlighted, so that it can be copied.
        self._console.print(text, markup=False, soft_wrap=True)


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")


def _quoted(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
