"""The routing tree: inheritance, who gets an alert, and keys as Alertmanager makes them."""

from __future__ import annotations

import pytest

from exporter.errors import ConfigError
from exporter.notify.config.load import load_config
from exporter.notify.config.model import NotifyConfig, Route
from exporter.storage.model import Labels, Matcher

RECEIVERS = "receivers: [{name: a}, {name: b}, {name: c}]\n"


def loaded(text: str) -> NotifyConfig:
    return load_config(RECEIVERS + text, "am.yml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    return caught.value.problems


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))


def taken(config: NotifyConfig, **values: str) -> list[str]:
    return [route.key for route in config.route.matching(labels(**values))]


def test_a_root_alone_has_alertmanagers_defaults():
    route = loaded("route: {receiver: a}").route
    assert route == Route("a", (), frozenset(), 30.0, 300.0, 14400.0)
    assert route.key == "{}"
    assert route.matching(labels(x="y")) == [route]


def test_children_inherit_everything_but_hours_and_continue():
    config = loaded("""
time_intervals: [{name: night}, {name: day}]
route:
  receiver: a
  group_by: [alertname, 模型]
  group_wait: 0s
  group_interval: 1m30s
  routes:
  - matchers: [x=y]
    repeat_interval: 1d
    mute_time_intervals: [night]
    active_time_intervals: [day]
    continue: true
    routes:
    - receiver: b
      matchers: [z=w]
      group_by: []
""")
    child = config.route.routes[0]
    assert (child.receiver, child.group_wait, child.group_interval, child.repeat_interval) == (
        "a",
        0.0,
        90.0,
        86400.0,
    )
    assert (child.mute_times, child.active_times, child.goes_on) == (("night",), ("day",), True)
    assert child.group_by == {"alertname", "模型"}
    grandchild = child.routes[0]
    assert (grandchild.receiver, grandchild.group_wait, grandchild.repeat_interval) == ("b", 0.0, 86400.0)
    assert (grandchild.mute_times, grandchild.active_times, grandchild.goes_on) == ((), (), False)
    assert grandchild.group_by == frozenset()
    assert [route.key for route in config.route.walk()] == ["{}", '{}/{x="y"}', '{}/{x="y"}/{z="w"}']


def test_three_dots_group_by_all_labels_until_a_child_says_otherwise():
    route = loaded("""
route:
  receiver: a
  group_by: ['...']
  routes: [{matchers: [x=y]}, {matchers: [x=z], group_by: [x]}]
""").route
    assert route.group_by is None
    assert route.routes[0].group_by is None
    assert route.routes[1].group_by == {"x"}


def test_the_first_child_that_matches_takes_an_alert_unless_it_goes_on():
    config = loaded("""
route:
  receiver: a
  routes:
  - matchers: [severity=critical]
    continue: true
  - matchers: [team=x]
    routes:
    - matchers: ['service=~"p|q"']
    - matchers: [service=q]
  - matchers: ['team=~".+"']
""")
    assert taken(config) == ["{}"]
    assert taken(config, severity="critical") == ['{}/{severity="critical"}']
    assert taken(config, severity="critical", team="x") == ['{}/{severity="critical"}', '{}/{team="x"}']
    assert taken(config, team="x", service="q") == ['{}/{team="x"}/{service=~"p|q"}']
    assert taken(config, team="y") == ['{}/{team=~".+"}']


def test_older_matches_are_matchers_and_their_anchors_stand_in_the_key_as_in_alertmanager():
    route = loaded("""
route:
  receiver: a
  routes:
  - match: {zone: eu, team: x}
    match_re: {service: ^(foo|bar)$}
    matchers: ['severity!="none",alertname=~"V.*"']
""").route.routes[0]
    assert route.key == (
        '{}/{alertname=~"V.*",service=~"^(?:^(foo|bar)$)$",severity!="none",team="x",zone="eu"}'
    )
    assert route.matching(labels(alertname="V", service="foo", team="x", zone="eu")) == [route]
    assert route.matching(labels(alertname="V", service="foot", team="x", zone="eu")) == []


def test_inhibitions_are_read_in_both_ways_of_writing_them():
    config = loaded("""
route: {receiver: a}
inhibit_rules:
- source_matchers: [severity="critical"]
  target_matchers: ['severity=~"warning|info"']
  equal: [alertname, instance]
  name: worse
- source_match: {a: b}
  source_match_re: {c: d}
  target_match: {e: f}
""")
    first, second = config.inhibitions
    assert first.source == (Matcher("severity", "=", "critical"),)
    assert first.target == (Matcher("severity", "=~", "warning|info"),)
    assert (first.equal, first.name) == (("alertname", "instance"), "worse")
    assert second.source == (Matcher("a", "=", "b"), Matcher("c", "=~", "^(?:d)$"))
    assert (second.target, second.equal) == ((Matcher("e", "=", "f"),), ())


def test_time_intervals_of_both_names_are_one_space():
    text = """
route:
  receiver: a
  routes:
  - matchers: [x=y]
    mute_time_intervals: [night, weekend]
mute_time_intervals:
- name: night
  time_intervals:
  - times: [{start_time: 22:00, end_time: '24:00'}]
    location: Asia/Shanghai
time_intervals:
- name: weekend
  time_intervals:
  - weekdays: ['saturday', sunday]
  - days_of_month: ['-1']
    months: ['december']
    years: ['2026:2030']
"""
    config = loaded(text)
    assert config.route.routes[0].mute_times == ("night", "weekend")
    assert config.intervals["night"].contains(15 * 3600)
    assert not config.intervals["night"].contains(22 * 3600)
    assert config.intervals["weekend"].contains(2 * 86400)  # 3 January 1970, a Saturday
    assert problems(text.replace("name: weekend", "name: night").replace(", weekend]", "]")) == [
        "am.yml:14:1: time_intervals: night is in mute_time_intervals, too"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "am.yml: no route: expected route with a receiver"),
        ("route: {group_wait: 1s}", "am.yml:2:8: route: receiver is missing: the root tells whoever no other route does"),
        ("route: {receiver: d}", "am.yml:2:19: route.receiver: no receiver d is defined"),
        ("route: {receiver: a, matchers: [a=b]}", "am.yml:2:22: route: the root must not have matchers: it takes every alert"),
        ("route: {receiver: a, continue: true}", "am.yml:2:22: route: the root cannot have continue: nothing comes after it"),
        ("route: {receiver: a, group_by: [x, x]}", "am.yml:2:36: route.group_by: x is there twice"),
        ("route: {receiver: a, group_by: ['...', x]}", "am.yml:2:32: route.group_by: '...' is by all labels, and stands alone"),
        ("route: {receiver: a, group_interval: 0s}", "am.yml:2:38: route.group_interval: must be longer than 0"),
        ("route: {receiver: a, repeat_interval: 0}", "am.yml:2:39: route.repeat_interval: must be longer than 0"),
        ("route: {receiver: a, group_wait: 5}", 'am.yml:2:34: route.group_wait: not a valid duration string: "5"'),
        ("route: {receiver: a, groupby: [x]}", "am.yml:2:22: route: unknown key groupby; did you mean group_by?"),
        ("route: {receiver: a, labels: {x: y}}", "am.yml:2:22: route: labels is not carried out here: labels of routes are for Go templates; leave it out"),
        ("route: {receiver: a, routes: [{matchers: a=b}]}", "am.yml:2:42: route.routes[0].matchers: expected a list"),
        ("route: {receiver: a, routes: [{matchers: ['a']}]}", "am.yml:2:43: route.routes[0].matchers: column 2: expected one of = != =~ !~, found the end"),
        ("route: {receiver: a, routes: [{match: {a-b: c}}]}", "am.yml:2:40: route.routes[0].match: a-b is no label name"),
        ("route: {receiver: a, routes: [{mute_time_intervals: [x]}]}", "am.yml:2:54: route.routes[0].mute_time_intervals: no time interval x is defined"),
        ("route: {receiver: a, routes: [b]}", "am.yml:2:31: route.routes[0]: expected a mapping"),
        ("route: {receiver: a}\ninhibit_rules: [{equal: ['']}]", "am.yml:3:26: inhibit_rules[0].equal: a label name must not be empty, and is valid UTF-8"),
        ("route: {receiver: a}\ninhibit_rules: [{source_match_re: {a: '['}}]", "am.yml:3:39: inhibit_rules[0].source_match_re.a: bad regular expression ^(?:[)$: missing ]: [)$"),
        ("route: {receiver: a}\ntime_intervals: [{time_intervals: []}]", "am.yml:3:18: time_intervals[0]: name is missing"),
        ("route: {receiver: a}\ntime_intervals: [{name: n, time_intervals: [{times: [{start_time: '9:00', end_time: '10:00'}]}]}]", "am.yml:3:54: time_intervals[0].time_intervals[0].times: expected a time such as 09:00, from 00:00 to 24:00"),
        ("route: {receiver: a}\ntime_intervals: [{name: n, time_intervals: [{weekdays: [mon]}]}]", "am.yml:3:57: time_intervals[0].time_intervals[0].weekdays: mon is not a day of the week"),
    ],
)  # fmt: skip
def test_what_alertmanager_refuses_is_refused_with_its_place(text: str, problem: str):
    assert problems(text) == [problem]
