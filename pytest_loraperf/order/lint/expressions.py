"""Expressions: what they evaluate to, and what their calls do."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_loraperf.order.lint.callees import Callees, numbered
from pytest_loraperf.order.lint.nodes import children, decorators
from pytest_loraperf.order.lint.scene import MAX_WORLDS, Outcome
from pytest_loraperf.order.lint.values import (
    NONE,
    Arguments,
    Const,
    Function,
    Imported,
    Thing,
    Value,
    World,
)


class Expressions(Callees):
    """Evaluating expressions, in each world by itself."""

    def evaluate(self, node: ast.expr, world: World) -> list[Outcome]:
        """Return the values of an expression, each with the world in which it has it."""
        if world.exit is not None:
            return [(world, NONE)]
        method = self.methods["_eval_", type(node)]
        if method is not None:
            found: list[Outcome] = method(self, node, world)
            return found
        if not self.survey.matters(node):
            return [(world, self.fresh())]
        inside = [each for each in children(node) if isinstance(each, ast.expr)]
        return [(after, self.fresh()) for after, _ in self.each(inside, world)]

    # Leaves and containers

    def _eval_constant(self, node: ast.Constant, world: World) -> list[Outcome]:
        return [(world, self.constant(node))]

    def _eval_name(self, node: ast.Name, world: World) -> list[Outcome]:
        return [(world, self.name(node.id, world))]

    def name(self, name: str, world: World) -> Value:
        """Return the value of a name; one that the file does not define is the same thing everywhere."""
        value = world.lookup(name)
        if value is not None:
            return value
        if name in {"torch", "sys", "os"} or name[:1].isupper():
            return Imported(name)
        return Thing(self.number(("name", name)), attribute=name)

    def _eval_attribute(self, node: ast.Attribute, world: World) -> list[Outcome]:
        found: list[Outcome] = []
        for after, owner in self.evaluate(node.value, world):
            value = self.attribute(after, owner, node.attr)
            if isinstance(value, Function) and value.receiver is not None and _is_property(value):
                call = ast.copy_location(ast.Call(node, [], []), node)
                found += self.call(value, Arguments(), call, after)
            else:
                found.append((after, value))
        return found

    def _eval_tuple(self, node: ast.Tuple | ast.List | ast.Set, world: World) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for after, values in self.each(node.elts, world):
            items: list[Value] = []
            for element, value in zip(node.elts, values, strict=True):
                inside = self.items(after, value, "list") if isinstance(element, ast.Starred) else None
                items += [each for _, each in inside] if inside is not None else [value]
            outcomes.append((after, self.container(after, "list", numbered(items))))
        return outcomes

    _eval_list = _eval_set = _eval_tuple

    def _eval_starred(self, node: ast.Starred, world: World) -> list[Outcome]:
        return self.evaluate(node.value, world)

    def _eval_dict(self, node: ast.Dict, world: World) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for after, values in self.each(node.values, world):
            items: list[tuple[str, Value]] = []
            for key, value in zip(node.keys, values, strict=True):
                if isinstance(key, ast.Constant):
                    items.append((str(key.value), value))
                elif key is None:
                    items += self.items(after, value, "dict") or []
                else:
                    items.append((f"?{len(items)}", value))
            outcomes.append((after, self.container(after, "dict", items)))
        return outcomes

    def _eval_subscript(self, node: ast.Subscript, world: World) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for after, (owner, index) in self.each([node.value, node.slice], world):
            thing = self.thing(owner)
            if thing is None:
                outcomes.append((after, self.fresh()))
                continue
            if thing.attribute == "components" and thing.owner is not None and isinstance(index, Const):
                outcomes.append((after, self.attribute(after, thing.owner, str(index.value))))
                continue
            key = f"[{index.value}]" if isinstance(index, Const) else "[?]"
            stored = after.attributes.get((thing.number, key))
            if stored is None:
                known = isinstance(index, Const)
                stored = (
                    Thing(self.number((thing.number, key)), owner=thing, attribute=key) if known else self.fresh()
                )
            outcomes.append((after, stored))
        return outcomes

    def _eval_slice(self, _: ast.Slice, world: World) -> list[Outcome]:
        return [(world, self.fresh())]

    # Flow inside an expression

    def _eval_namedexpr(self, node: ast.NamedExpr, world: World) -> list[Outcome]:
        outcomes = self.evaluate(node.value, world)
        for after, value in outcomes:
            after.bind(node.target.id, value)
        return outcomes

    def _eval_await(self, node: ast.Await, world: World) -> list[Outcome]:
        return self.evaluate(node.value, world)

    def _eval_yield(self, node: ast.Yield, world: World) -> list[Outcome]:
        outcomes = self.evaluate(node.value, world) if node.value is not None else [(world, NONE)]
        return [(last, self.fresh()) for after, value in outcomes for last in self.yielded(value, after)]

    def yielded(self, value: Value, world: World) -> list[World]:
        """Give a value to whoever called the generator; the first stands for all of them."""
        world.names(len(world.frames) - 1).setdefault("<yield>", value)
        return [world]

    def _eval_ifexp(self, node: ast.IfExp, world: World) -> list[Outcome]:
        return [
            outcome
            for taken, holds in self.fork(node.test, world)
            for outcome in self.evaluate(node.body if holds else node.orelse, taken)
        ]

    def _eval_boolop(self, node: ast.BoolOp, world: World) -> list[Outcome]:
        """Evaluate ``a or b`` and ``a and b``: the first that decides, or the last."""
        first, *rest = node.values
        if not rest:
            return self.evaluate(first, world)
        remaining = ast.copy_location(ast.BoolOp(node.op, rest), node)
        stops = isinstance(node.op, ast.Or)
        outcomes: list[Outcome] = []
        for after, value in self.evaluate(first, world):
            truth = self.truth(first, after)
            if truth is not stops:
                going = after.copy() if truth is None else after
                if truth is None:
                    self.assume(first, going, holds=not stops)
                outcomes += self._eval_boolop(remaining, going)
            if truth is None:
                self.assume(first, after, holds=stops)
            if truth is not (not stops):
                outcomes.append((after, value))
        return outcomes[:MAX_WORLDS]

    def fork(self, test: ast.expr, world: World) -> Iterator[tuple[World, bool]]:
        """Yield the worlds in which a condition holds and those in which it does not."""
        worlds = [after for after, _ in self.evaluate(test, world)] if self.survey.matters(test) else [world]
        for each in worlds:
            if each.exit is not None:
                yield each, True
                continue
            truth = self.truth(test, each)
            if truth is not None:
                yield each, truth
                continue
            other = each.copy()
            self.assume(test, each, holds=True)
            self.assume(test, other, holds=False)
            yield each, True
            yield other, False

    def _eval_lambda(self, node: ast.Lambda, world: World) -> list[Outcome]:
        return [(world, world.defined(node))]

    def _eval_listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, world: World) -> list[Outcome]:
        if node not in self.survey.hot:
            return [(world, self.fresh())]
        return [
            (after, self.container(after, "list", [("0", value)]))
            for before in self._comprehend(node.generators, world)
            for after, value in self.evaluate(node.elt, before)
        ]

    _eval_setcomp = _eval_generatorexp = _eval_listcomp

    def _eval_dictcomp(self, node: ast.DictComp, world: World) -> list[Outcome]:
        if node not in self.survey.hot:
            return [(world, self.fresh())]
        return [
            (after, self.container(after, "dict", [("?0", value)]))
            for before in self._comprehend(node.generators, world)
            for after, value in self.evaluate(node.value, before)
        ]

    def _comprehend(self, generators: list[ast.comprehension], world: World) -> list[World]:
        worlds = [world]
        for each in generators:
            entered: list[World] = []
            for before in worlds:
                for after, values in self.evaluate(each.iter, before):
                    items = self.items(after, values, "list")
                    self.assign(each.target, items[0][1] if items else self.fresh(), after)
                    entered.append(after)
            worlds = entered
        return worlds

    def assign(self, target: ast.expr, value: Value, world: World) -> None:
        """Give a target a value."""
        if isinstance(target, ast.Name):
            world.bind(target.id, value)
        elif isinstance(target, ast.Attribute):
            for _, owner in self.evaluate(target.value, world)[:1]:
                self.store(world, owner, target.attr, value)
        elif isinstance(target, ast.Subscript):
            for _, (owner, index) in self.each([target.value, target.slice], world)[:1]:
                if isinstance(owner, Thing):
                    key = index.value if isinstance(index, Const) else "?"
                    world.set(owner.number, f"[{key}]", value)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, self.fresh(), world)
        elif isinstance(target, ast.Tuple | ast.List):
            items = self.items(world, value, "list") or []
            whole = len(items) == len(target.elts)
            for place, element in enumerate(target.elts):
                self.assign(element, items[place][1] if whole else self.fresh(), world)


def _is_property(function: Function) -> bool:
    return not isinstance(function.node, ast.Lambda) and bool(
        decorators(function.node) & {"property", "cached_property"}
    )
