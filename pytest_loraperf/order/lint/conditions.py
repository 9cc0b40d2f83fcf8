"""Conditions: which arm of a branch is taken, where that is known, and what taking one says of later branches."""

from __future__ import annotations

import ast

from pytest_loraperf.order.lint.scene import Scene
from pytest_loraperf.order.lint.values import NONE, Class, Const, Function, Imported, Thing, Value, World

_EQUAL = "=="
_OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.IsNot: ast.Is, ast.NotEq: ast.Eq, ast.NotIn: ast.In}


class Conditions(Scene):
    """Truth of expressions that are read, not run."""

    def truth(self, test: ast.expr, world: World) -> bool | None:
        """Return what a condition is in this world, or None where both are possible."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.truth(test.operand, world)
            return None if inner is None else not inner
        if isinstance(test, ast.BoolOp):
            decisive = isinstance(test.op, ast.Or)
            each = [self.truth(value, world) for value in test.values]
            if decisive in each:
                return decisive
            return None if None in each else not decisive
        if isinstance(test, ast.NamedExpr):
            return self.truth(test.target, world)
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return self._compare(test.left, test.ops[0], test.comparators[0], world)
        value = self.peek(test, world)
        known = self._truth_of(value, world) if value is not None else None
        assumed = world.assumed.get(self._key(test, value, world)) if known is None else known
        return assumed if isinstance(assumed, bool) else None

    def assume(self, test: ast.expr, world: World, holds: bool) -> None:
        """Remember that a condition holds, or does not, on the path that this world goes on."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.assume(test.operand, world, not holds)
        elif isinstance(test, ast.BoolOp):
            if isinstance(test.op, ast.And) == holds:
                for value in test.values:
                    self.assume(value, world, holds)
        elif isinstance(test, ast.NamedExpr):
            self.assume(test.target, world, holds)
        elif isinstance(test, ast.Compare) and len(test.ops) == 1:
            self._assume_comparison(test, world, holds)
        else:
            world.assumed[self._key(test, self.peek(test, world), world)] = holds

    def _assume_comparison(self, test: ast.Compare, world: World, holds: bool) -> None:
        operator, right = test.ops[0], self.peek(test.comparators[0], world)
        one = self._key(test.left, self.peek(test.left, world), world)
        opposite = type(operator) in _OPPOSITES
        if isinstance(operator, ast.Eq | ast.NotEq) and isinstance(right, Const) and holds != opposite:
            world.assumed[_EQUAL, one] = right
        else:
            other = self._key(test.comparators[0], right, world)
            world.assumed[_kind(operator), one, other] = holds != opposite

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr, world: World) -> bool | None:
        one, other = self.peek(left, world), self.peek(right, world)
        opposite = type(operator) in _OPPOSITES
        found: bool | None = None
        if isinstance(left, ast.Name) and left.id == "__name__":
            found = True
        elif isinstance(operator, ast.Is | ast.IsNot) and other == NONE and one is not None:
            found = self._is_none(one, world)
        elif isinstance(other, Const) or isinstance(operator, ast.In | ast.NotIn):
            known = one if isinstance(one, Const) else self._assumed_value(left, one, world)
            if known is not None:
                found = self._equal(known, operator, other, right)
        if found is None:
            key = _kind(operator), self._key(left, one, world), self._key(right, other, world)
            assumed = world.assumed.get(key)
            found = assumed if isinstance(assumed, bool) else None
        return None if found is None else found != opposite

    def _assumed_value(self, node: ast.expr, value: Value | None, world: World) -> Const | None:
        found = world.assumed.get((_EQUAL, self._key(node, value, world)))
        return found if isinstance(found, Const) else None

    def _equal(self, one: Const, operator: ast.cmpop, other: Value | None, right: ast.expr) -> bool | None:
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set):
                return None
            items = [each.value for each in right.elts if isinstance(each, ast.Constant)]
            return one.value in items if len(items) == len(right.elts) else None
        if isinstance(operator, ast.Eq | ast.NotEq) and isinstance(other, Const):
            return one.value == other.value
        return None

    def _is_none(self, value: Value, world: World) -> bool | None:
        if isinstance(value, Const):
            return value.value is None
        if isinstance(value, Thing):
            return False if world.history(value) or value.flags or value.cls or value.made else None
        return False

    def _truth_of(self, value: Value, world: World) -> bool | None:
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, Function | Class):
            return True
        if isinstance(value, Imported):
            return {"TYPE_CHECKING": False}.get(value.name)
        if isinstance(value, Thing) and (world.history(value) or value.cls):
            return True
        return None

    def peek(self, node: ast.expr, world: World) -> Value | None:
        """Return the value of a constant, a name or an attribute; nothing is run."""
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.Name):
            return world.lookup(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.peek(node.value, world)
            return None if owner is None else self.attribute(world, owner, node.attr)
        return None

    def _key(self, node: ast.expr, value: Value | None, world: World) -> object:
        """Return what stays the same as long as the condition does: its text and the values of its names.

        ``value`` is what ``peek`` says of the node.
        """
        if isinstance(value, Thing):
            return value
        return self.text(node), tuple(map(world.lookup, self.names_in(node)))


def _kind(operator: ast.cmpop) -> type[ast.cmpop]:
    """Return the operator that this one is, or is the opposite of."""
    return _OPPOSITES.get(type(operator), type(operator))
