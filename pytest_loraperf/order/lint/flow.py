"""Branches, loops, exceptions: which statements run after which."""

from __future__ import annotations

import ast

from pytest_loraperf.order.lint.scene import MAX_WORLDS
from pytest_loraperf.order.lint.uncalled import Uncalled
from pytest_loraperf.order.lint.values import Exit, Thing, Value, World, merge

MAX_ITEMS = 8
_VIEWS = frozenset({"items", "keys", "values"})
_OVER = frozenset({"enumerate", "list", "reversed", "sorted", "tuple"})


class Flow(Uncalled):
    """Running compound statements."""

    _guarded = 0

    # Branches

    def _do_if(self, node: ast.If, world: World) -> list[World]:
        return [
            after
            for taken, holds in self.fork(node.test, world)
            for after in self.block(node.body if holds else node.orelse, [taken])
        ]

    def _do_match(self, node: ast.Match, world: World) -> list[World]:
        """Run each case as if it were ``if subject == value``, in their order."""
        worlds = [after for after, _ in self.evaluate(node.subject, world)]
        done: list[World] = []
        for case in node.cases:
            remaining: list[World] = []
            for each in worlds:
                if _catches_all(case):
                    done += self.block(case.body, [each])
                    continue
                test = case.pattern.value if isinstance(case.pattern, ast.MatchValue) else ast.Constant(value=...)
                comparison = ast.copy_location(ast.Compare(node.subject, [ast.Eq()], [test]), node)
                for taken, holds in self.fork(comparison, each):
                    if holds:
                        done += self.block(case.body, [taken])
                    else:
                        remaining.append(taken)
            worlds = remaining
        return done + worlds

    def _do_try(self, node: ast.Try, world: World) -> list[World]:
        """Run a body, and each handler after every part of the body that can come before an exception."""
        before: list[World] = [world.copy()] if node.handlers else []
        worlds, ended = [world], list[World]()
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not self.survey.matters(statement):
                continue
            self._guarded += 1
            after = self.block([statement], worlds)
            self._guarded -= 1
            ended += [each for each in after if each.exit is not None]
            worlds = [each for each in after if each.exit is None]
            # Operations in a row are one: the next of them takes the blame for what fails between them
            if node.handlers and following is not None and following not in self.survey.hot:
                before = merge([*before, *(each.copy() for each in worlds)], MAX_WORLDS)
        worlds = self.block(node.orelse, worlds)
        if node.handlers:
            before += [each for each in ended if each.exit is Exit.RAISE]
            ended = [each for each in ended if each.exit is not Exit.RAISE]
        for handler in node.handlers:
            for each in before:
                started = each.copy()
                started.exit = None
                if handler.name is not None:
                    started.bind(handler.name, self.fresh())
                ended += self.block(handler.body, [started])
        return self._finally(node.finalbody, worlds + ended)

    _do_trystar = _do_try

    def _finally(self, body: list[ast.stmt], worlds: list[World]) -> list[World]:
        if not body:
            return worlds
        done: list[World] = []
        for each in worlds:
            leaving, each.exit = each.exit, None
            returned = each.returned
            for after in self.block(body, [each]):
                if after.exit is None:
                    after.exit, after.returned = leaving, returned
                done.append(after)
        return done

    # Loops

    def _do_for(self, node: ast.For | ast.AsyncFor, world: World) -> list[World]:
        done: list[World] = []
        iterated = _iterated(node.iter)
        for after, values in self.evaluate(node.iter, world):
            if self.truth(iterated, after) is False:
                done += self.block(node.orelse, [after])
                continue
            if after.exit is None:
                self.assume(iterated, after, holds=True)  # what the loop runs over is not empty
            items = self.items(after, values, "list")
            rounds: list[Value]
            if isinstance(values, Thing) and self.is_model(values, after):
                rounds = [values]  # a generator of the file, of which one item is known
            elif items is not None and 0 < len(items) <= MAX_ITEMS:
                rounds = [value for _, value in items]
            else:
                rounds = [self.fresh(), self.fresh()]
            worlds, left = [after], list[World]()
            known = len(self.findings)
            for value in rounds:
                if items is None and self.survey.feeds_operations(node) and len(self.findings) > known:
                    break  # another round, with another adapter, would say the same the other way round
                for each in worlds:
                    self.assign(node.target, value, each)
                worlds, broken = self._round(node.body, worlds)
                left += broken
            done += self.block(node.orelse, worlds) + left
        return done

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While, world: World) -> list[World]:
        """Run a body up to twice, as the condition allows."""
        endless = self.truth(node.test, world) is True
        waiting, done, left = [world], list[World](), list[World]()
        for _ in range(2):
            entered: list[World] = []
            for each in waiting:
                for taken, holds in self.fork(node.test, each):
                    (entered if holds else done).append(taken)
            waiting, broken = self._round(node.body, entered)
            left += broken
        if not endless:
            done += waiting
        return self.block(node.orelse, merge(done, MAX_WORLDS)) + left

    def _round(self, body: list[ast.stmt], worlds: list[World]) -> tuple[list[World], list[World]]:
        """Run a loop's body once; return the worlds that go on with the loop, and those that left it."""
        going: list[World] = []
        left: list[World] = []
        for each in self.block(body, worlds):
            if each.exit is Exit.BREAK:
                each.exit = None
                left.append(each)
            elif each.exit is None or each.exit is Exit.CONTINUE:
                each.exit = None
                going.append(each)
            else:
                left.append(each)
        return merge(going, MAX_WORLDS), left


def _iterated(node: ast.expr) -> ast.expr:
    """Return what a loop runs over: ``x`` of ``x.items()``, of ``enumerate(x)`` and of the like."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS and not node.args:
            return _iterated(node.func.value)
        if isinstance(node.func, ast.Name) and node.func.id in _OVER and node.args:
            return _iterated(node.args[0])
    return node


def _catches_all(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
