"""Teeth: each guard is taken away in a copy of the tree, and the test that holds it must go red.

A test that never failed is no test. Each mutant is one replacement in one file, which must match
exactly once, so that a mutant that no longer applies is an error and not a pass.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.mutants.removal import Mutant, take_away

OWNER = "tests/integration/test_owner.py"
RECORDING = "tests/integration/test_recording.py"
RUNNER = "tests/unit/test_runner.py"
PORTIONS = "tests/unit/test_portions.py"
BACKPRESSURE = "tests/integration/test_backpressure.py"
ISOLATION = "tests/integration/test_isolation.py"
RULES = "tests/unit/test_rules.py"
ATTACKS = "tests/integration/test_attacks.py"
ALERT_RULES = "tests/integration/test_alert_rules.py"
GROUPS = "tests/integration/test_group_commit.py"
LIVE = "tests/integration/test_live.py"
PROMISES = "tests/acceptance/test_promises.py"
BRIDGE = "tests/integration/test_bridge.py"
DOOR = "tests/integration/test_dashboard_door.py"
CALLS = "tests/integration/test_model_calls.py"
PAGES = "tests/integration/test_dashboard_pages.py"
LETTERS = "tests/integration/test_dashboard_dead_letters.py"
TRACEPARENT = "tests/integration/test_traceparent.py"
TRACING = "tests/unit/test_tracing.py"
ANALYST = "tests/integration/test_analyst.py"
CHANNEL = "tests/integration/test_channel.py"
SPINE = "tests/integration/test_spine.py"

MUTANTS = {
    "a flight knows its run for ever": Mutant(
        "P8",
        "orchestrator/runtime/dispatcher.py",
        "            flight.running = None\n",
        "            pass\n",
        f"{SPINE}::test_an_attempt_leaves_nothing_to_the_collector",
    ),
    "a fault of ours keeps its slot": Mutant(
        "P1",
        "orchestrator/runtime/dispatcher.py",
        "            outcome = Failed(Fault(type=type(error).__name__, message=message))\n",
        "            return\n",
        f"{SPINE}::test_a_fault_of_ours_fails_its_task_and_keeps_neither_slot_nor_lease",
    ),
    "what is no Exception keeps its slot": Mutant(
        "P1",
        "orchestrator/runtime/dispatcher.py",
        "        except BaseException as error:\n",
        "        except Exception as error:\n",
        f"{SPINE}::test_whatever_an_agent_raises_keeps_neither_slot_nor_lease",
    ),
    "what is no Exception goes past the agent's policy": Mutant(
        "P5",
        "orchestrator/runtime/runner.py",
        "        except BaseException as error:\n",
        "        except Exception as error:\n",
        f"{RUNNER}::test_whatever_is_raised_goes_by_the_agents_policy",
    ),
    "an exception that cannot say what it is is a fault of ours": Mutant(
        "P5",
        "orchestrator/errors.py",
        "    except BaseException as failed:  # noqa: BLE001 - theirs, whatever it is\n",
        "    except OrchestratorError as failed:\n",
        f"{RUNNER}::test_an_exception_that_cannot_say_what_it_is_goes_by_the_policy_too",
    ),
    "an agent may set what it likes": Mutant(
        "P10",
        "orchestrator/agent.py",
        "            if not is_right(given := getattr(cls, setting)):\n",
        "            if not is_right(given := getattr(cls, setting)) and False:\n",
        f"{RUNNER}::test_a_setting_of_the_wrong_kind_shows_at_import",
    ),
    "an agent's run need not be callable": Mutant(
        "P10",
        "orchestrator/agent.py",
        "    if inspect.isfunction(run):\n",
        "    if False:\n",
        f"{RUNNER}::test_so_does_a_run_that_cannot_be_called",
    ),
    "an agent without types is passed over": Mutant(
        "P10",
        "orchestrator/registry.py",
        '        if not hasattr(each, "input_type") and not _is_base(each):\n',
        "        if False:\n",
        "tests/unit/test_registry.py::test_an_agent_that_names_no_types_is_refused_and_a_base_is_not",
    ),
    "the types of a generic base go by their place": Mutant(
        "P10",
        "orchestrator/agent.py",
        "            return tuple(_filled(each, filled) for each in types)\n",
        "            return given\n",
        f"{RUNNER}::test_a_generic_base_may_name_its_types_in_any_order",
    ),
    "an input that no type wants is tried again": Mutant(
        "P10",
        "orchestrator/runtime/runner.py",
        "            except InvalidInput as error:  # its own",
        "            except OSError as error:  # its own",
        f"{RUNNER}::test_invalid_input_is_set_aside_and_names_the_field",
    ),
    "what a wrapper injects is asked of the caller": Mutant(
        "P10",
        "orchestrator/agent.py",
        "follow_wrapped=False",
        "follow_wrapped=True",
        f"{RUNNER}::test_a_run_is_called_as_its_wrapper_says",
    ),
    "a type variable in a container is a type": Mutant(
        "P10",
        "orchestrator/agent.py",
        "        if types and not any(map(_left_open, types)):\n",
        "        if types and not any(isinstance(each, TypeVar) for each in types):\n",
        f"{RUNNER}::test_type_variables_are_filled_wherever_they_stand",
    ),
    "a policy that raises is a fault of ours": Mutant(
        "P5",
        "orchestrator/runtime/runner.py",
        "    except Exception as failed:\n        # Theirs",
        "    except OSError as failed:\n        # Theirs",
        f"{RUNNER}::test_what_an_exception_or_a_policy_of_theirs_does_wrong_stays_theirs",
    ),
    "what validators raise is not the rule's failure": Mutant(
        "P1",
        "orchestrator/rule.py",
        "    except BaseException as error:\n        # What is no JSON",
        "    except Exception as error:\n        # What is no JSON",
        "tests/unit/test_alert_rules.py::test_so_is_what_the_agents_own_validators_raise",
    ),
    "an attempt in a thread may end unheard": Mutant(
        "P5",
        "orchestrator/runtime/forked.py",
        "    except StopIteration as error:\n",
        "    except ZeroDivisionError as error:\n",
        f"{RUNNER}::test_next_without_a_default_ends_a_plain_function_at_once",
    ),
    "the limit of an attempt knows it for ever": Mutant(
        "P8",
        "orchestrator/runtime/runner.py",
        "ctx.clock.limit = None",
        "pass",
        f"{SPINE}::test_an_attempt_leaves_nothing_to_the_collector",
    ),
    "a run that waits has no limit": Mutant(
        "P5",
        "orchestrator/runtime/forked.py",
        "    async with limit():\n",
        "    async with nullcontext():\n",
        f"{RUNNER}::test_a_timeout_is_told_as_one",
    ),
    "the time of an attempt counts from its first wait": Mutant(
        "P5",
        "orchestrator/context.py",
        "self.limit = asyncio.timeout_at(self._end)",
        "self.limit = asyncio.timeout(60)",
        f"{RUNNER}::test_the_time_of_an_attempt_counts_from_its_start",
    ),
    "an input is reckoned as it is in Python": Mutant(
        "P1",
        "orchestrator/agent.py",
        "from_json(cls.input_type.dump_json(checked))",
        'cls.input_type.dump_python(checked, mode="json")',
        "tests/unit/test_message.py::test_a_task_is_to_its_reader_what_it_was_to_its_sender",
    ),
    "an alert can know the marks around what it says": Mutant(
        "P10",
        "agents/analyst.py",
        "mark=secrets.token_hex(8)",
        'mark="0123456789abcdef"',
        f"{ANALYST}::test_a_model_that_calls_tools_is_given_one_that_reads",
    ),
    "what an exception quotes goes to the collector": Mutant(
        "P10",
        "orchestrator/tracing/exporting.py",
        "spans if self._content else [*map(_discreet, spans)]",
        "spans",
        f"{TRACING}::test_prompts_and_answers_are_told_only_where_somebody_wants_them",
    ),
    "what is missing is JSON's null": Mutant(
        "P2",
        "orchestrator/db/bulk.py",
        "_ABSENT if each is None else to_json(each",
        "to_json(each",
        "tests/unit/test_columns.py::test_a_missing_value_is_a_null_of_every_kind",
    ),
    "a task that is published again begins another trace": Mutant(
        "P1",
        "orchestrator/db/reconciling.py",
        "            traceparent=row.traceparent,\n",
        "",
        f"{TRACEPARENT}::test_the_record_keeps_it_for_who_publishes_again",
    ),
    "an end does not count the calls of models before it": Mutant(
        "P2",
        "orchestrator/db/recording.py",
        "    if writes.calls or (found is not None and found.spent):\n",
        "    if writes.calls:\n",
        f"{CALLS}::test_two_recorders_with_a_call_and_an_end_both_count",
    ),
    "a recorder does not wait for another's call of a model": Mutant(
        "P2",
        "orchestrator/db/recording.py",
        " ORDER BY id FOR UPDATE",
        " ORDER BY id",
        f"{CALLS}::test_two_recorders_with_a_call_and_an_end_both_count",
    ),
    "an alert that comes again is counted again": Mutant(
        "P2",
        "orchestrator/db/investigations.py",
        "[m for m in here if (m.alert.id, m.rule.name) in fresh]",
        "here",
        f"{ALERT_RULES}::test_a_storm_is_a_few_investigations_with_all_their_alerts",
    ),
    "each handler takes the stories in its own order": Mutant(
        "P10",
        "orchestrator/db/investigations.py",
        "for place in sorted(by_place)]",
        "for place in by_place]",
        f"{ALERT_RULES}::test_handlers_that_meet_in_many_stories_wait_and_never_deadlock",
    ),
    "a rule that fails takes the alert from the others": Mutant(
        "P10",
        "orchestrator/services/alerts.py",
        "                refused.append(error)\n",
        "                refused.append(error)\n                break\n",
        f"{ALERT_RULES}::test_a_rule_that_fails_sets_the_alert_aside_for_itself_alone",
    ),
    "markup of an alert is markup of the page": Mutant(
        "P10",
        "orchestrator/dashboard/rendering.py",
        "autoescape=True",
        "autoescape=False",
        f"{PAGES}::test_what_others_said_is_text",
    ),
    "a form of another site is taken": Mutant(
        "P10",
        "orchestrator/dashboard/sessions.py",
        "                check_same_origin(headers)\n",
        "",
        f"{DOOR}::test_a_form_of_another_site_changes_nothing",
    ),
    "a page without a session": Mutant(
        "P10",
        "orchestrator/dashboard/sessions.py",
        'if state["key"] is None and not path.startswith(OPEN):',
        "if False:",
        f"{DOOR}::test_nothing_is_shown_without_a_session",
    ),
    "a group is closed with what nobody has seen": Mutant(
        "P10",
        "orchestrator/db/causes.py",
        ".where(DeadLetterRow.closed_at.is_(None), DeadLetterRow.created_at <= until)",
        ".where(DeadLetterRow.closed_at.is_(None))",
        f"{LETTERS}::test_a_group_is_closed_at_once_and_what_came_later_is_not",
    ),
    "no owner check": Mutant(
        "P2",
        "orchestrator/streams/scripts/finish.lua",
        "if not owned(stream, id, times, seen_attempt, attempt) then",
        "if false then",
        f"{OWNER}::test_who_lost_the_entry_says_nothing_and_acknowledges_nothing",
    ),
    "the consumer's name as the only fence": Mutant(
        "P2",
        "orchestrator/streams/scripts/finish.lua",
        "return found[1][2] == consumer and tonumber(found[1][4]) == times",
        "return found[1][2] == consumer",
        f"{OWNER}::test_the_consumers_name_is_no_fence",
    ),
    "acknowledged although nothing ended it": Mutant(
        "P4",
        "orchestrator/streams/scripts/finish.lua",
        "elseif kind == 'drop' then",
        "elseif false then",
        f"{ATTACKS}::test_what_nobody_ended_is_not_acknowledged",
    ),
    "our own sweep counts as a start": Mutant(
        "P6",
        "orchestrator/streams/scripts/claim.lua",
        "if known[entry[1]] then",
        "if false then",
        f"{ATTACKS}::test_our_own_sweep_does_not_take_what_we_have_in_hand",
    ),
    "a neighbour's file is proof enough": Mutant(
        "P5",
        "orchestrator/streams/neighbours.py",
        "fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "pass",
        "tests/unit/test_neighbours.py::"
        "test_one_that_was_killed_has_ended_and_one_that_stands_still_lives",
    ),
    "only who has looked for a minute tidies up": Mutant(
        "P5",
        "orchestrator/streams/neighbours.py",
        "        if stat.S_IMODE(found.st_mode) == ENDED:\n",
        "        if False:\n",
        "tests/unit/test_neighbours.py::test_those_who_look_only_for_a_moment_tidy_up_together",
    ),
    "who looked before the lock has said that it ended": Mutant(
        "P5",
        "orchestrator/streams/neighbours.py",
        "            os.fchmod(number, LIVES)  # somebody may have looked before it was locked\n",
        "",
        "tests/unit/test_neighbours.py::test_who_looked_before_it_was_locked_has_not_marked_it",
    ),
    "nobody sees a neighbour's end": Mutant(
        "P5",
        "orchestrator/streams/consumer.py",
        "if seen.ended and (found := await self._take_over(free, seen)):",
        "if seen.ended and (found := []):",
        "tests/integration/test_consumer.py::"
        "test_what_a_neighbour_had_that_ended_is_taken_over_before_its_lease",
    ),
    "a session publishes what it rolled back": Mutant(
        "P1",
        "orchestrator/db/tasks.py",
        "            kept = await self._existing(list(pending))\n",
        "            kept = list(pending)\n",
        f"{RECORDING}::test_a_session_publishes_if_and_only_if_it_commits",
    ),
    "no end marker": Mutant(
        "P2",
        "orchestrator/streams/scripts/finish.lua",
        "elseif ended and ended ~= '' and kind ~= 'reject' then",
        "elseif false then",
        f"{OWNER}::test_two_entries_of_one_task_have_one_end",
    ),
    "a group of endings forgets what it ended": Mutant(
        "P2",
        "orchestrator/streams/scripts/finish.lua",
        "  seen[marker] = value\n",
        "",
        f"{OWNER}::test_two_entries_of_one_task_that_end_together_have_one_end",
    ),
    "a second end overwrites the first": Mutant(
        "P2",
        "orchestrator/fold.py",
        "            self._superseded(record, heard)\n            return\n",
        "            self._superseded(record, heard)\n",
        "tests/unit/test_record.py::test_the_first_end_stays",
    ),
    "deleted when one group has acknowledged": Mutant(
        "P3",
        "orchestrator/streams/scripts/acknowledged.lua",
        "    if not held then free[#free + 1] = id end",
        "    free[#free + 1] = id",
        f"{OWNER}::test_nothing_is_deleted_before_every_group_has_acknowledged",
    ),
    "a missing group holds nothing back": Mutant(
        "P3",
        "orchestrator/streams/scripts/acknowledged.lua",
        "    if not names[name] then return nil end",
        "",
        f"{OWNER}::test_a_missing_group_keeps_everything",
    ),
    "a file of alerts has new ids each time": Mutant(
        "P10",
        "orchestrator/formats/normalise.py",
        'return own_id(data) or str(uuid5(NAMESPACE, f"alert\\x1f{canonical}"))',
        'return own_id(data) or str(uuid5(NAMESPACE, f"{object()}{canonical}{id(data)}"))',
        "tests/unit/test_formats.py::test_the_same_content_is_the_same_alert",
    ),
    "whoever acknowledges last is told": Mutant(
        "P10",
        "orchestrator/db/acknowledging.py",
        "            if (row.acknowledged_at is None) == (by is None):\n                continue\n",
        "",
        "tests/integration/test_alert_search.py"
        "::test_who_acknowledges_first_stays_and_the_audit_says_it",
    ),
    "a search without a window": Mutant(
        "P8",
        "orchestrator/db/listing.py",
        "LOOKED_AT if filters else limit + 1",
        "10**9",
        "tests/integration/test_alert_search.py::test_no_search_reads_the_whole_table",
    ),
    "acknowledged before the commit": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "        said = False\n",
        "        said = False\n"
        "        await self.consumer.acknowledge([item.delivery for item in portion])\n",
        f"{RECORDING}::test_nothing_is_acknowledged_before_it_is_committed",
    ),
    "two portions of one task are written at once": Mutant(
        "P4",
        "orchestrator/services/portions.py",
        "            and all(each.task_ids.isdisjoint(task_ids) for each in self._portions)\n",
        "",
        f"{PORTIONS}::test_what_is_said_of_a_task_is_never_written_at_once",
    ),
    "portions under way are as large as they like together": Mutant(
        "P8",
        "orchestrator/services/portions.py",
        "            and size + sum(each.size for each in self._portions) <= PORTION_BYTES\n",
        "",
        f"{PORTIONS}::test_together_they_are_no_larger_than_one_portion",
    ),
    "what is being written is read again": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "                *self._under_way.entry_ids(),\n",
        "",
        f"{RECORDING}::test_a_portion_that_waits_holds_up_neither_the_next_one_nor_itself",
    ),
    "what could not be acknowledged is taken for being under way": Mutant(
        "P4",
        "orchestrator/services/portions.py",
        "        self._forget_ended()\n        return [each for portion",
        "        return [each for portion",
        f"{PORTIONS}::test_the_entries_in_hand_are_known_until_they_are_dealt_with",
    ),
    "one portion at a time": Mutant(
        "P10",
        "orchestrator/services/portions.py",
        "AT_ONCE = 3",
        "AT_ONCE = 1",
        f"{RECORDING}::test_a_portion_that_waits_holds_up_neither_the_next_one_nor_itself",
    ),
    "no reconciler": Mutant(
        "P1",
        "orchestrator/services/reconciler.py",
        "        await self.publisher.publish_many(list(messages.values()))\n",
        "",
        f"{RECORDING}::test_a_row_without_a_message_is_published",
    ),
    "an end that comes second leaves a letter": Mutant(
        "P2",
        "orchestrator/fold.py",
        "            self._superseded(record, heard)\n            return\n        if letter",
        "            self._superseded(record, heard)\n        if letter",
        "tests/unit/test_record.py::test_an_end_that_comes_second_leaves_no_letter",
    ),
    "a retry is due by its worker's clock": Mutant(
        "P1",
        "orchestrator/fold.py",
        "return heard.at + (event.run_at - event.at)",
        "return event.run_at",
        "tests/unit/test_record.py::test_a_retry_is_due_by_redis_clock",
    ),
    "a reconciler that looks for a message once": Mutant(
        "P2",
        "orchestrator/services/reconciler.py",
        "(await self._lost(unchanged))[:most]",
        "unchanged[:most]",
        f"{RECORDING}::test_a_message_that_came_back_meanwhile_is_not_published_beside",
    ),
    "a reconciler that does not wait for the recorder": Mutant(
        "P1",
        "orchestrator/services/reconciler.py",
        "if not await recorded_past(self.streams, self._observed.marks):",
        "if False:",
        f"{RECORDING}::test_a_lost_message_is_published_again_and_a_slow_recorder_is_waited_for",
    ),
    "no lease thread": Mutant(
        "P5",
        "orchestrator/runtime/lease.py",
        'await _survived(self._renew(streams), "lease not renewed")',
        "True",
        f"{PROMISES}::test_an_agent_that_blocks_the_loop_is_run_once",
    ),
    "an error ends the lease thread": Mutant(
        "P5",
        "orchestrator/runtime/lease.py",
        "    except Exception as error:\n",
        "    except Unavailable as error:\n",
        "tests/integration/test_lease.py::test_it_outlives_a_group_that_is_gone",
        (
            (
                "orchestrator/streams/pending.py",
                "        if is_missing_group(error):\n",
                "        if False:\n",
            ),
        ),
    ),
    "a lease thread that rests while something is received": Mutant(
        "P5",
        "orchestrator/runtime/lease.py",
        "        if kept:\n            self._wake()\n",
        "",
        "tests/integration/test_lease.py::test_it_rests_until_something_is_received",
    ),
    "claims from 0-0 each time": Mutant(
        "P5",
        "orchestrator/streams/consumer.py",
        '                self._cursors.get(key, "0-0"),',
        '                "0-0",',
        "tests/integration/test_consumer.py::test_claims_behind_a_window_of_renewed_entries",
    ),
    "no limit on starts": Mutant(
        "P6",
        "orchestrator/runtime/flight.py",
        "if crashes >= MOST_STARTS * max_starts:",
        "if False:",
        f"{RULES}::test_what_ends_an_attempt_before_it_starts",
    ),
    "the deaths of its workers set a neighbour aside": Mutant(
        "P6",
        "orchestrator/runtime/flight.py",
        "if crashes >= MOST_STARTS * max_starts:",
        "if crashes >= max_starts:",
        f"{RULES}::test_what_ends_an_attempt_before_it_starts",
    ),
    "a suspect among the others": Mutant(
        "P6",
        "orchestrator/runtime/dispatcher.py",
        "isolated = flight.suspect or agent.isolation == Isolation.PROCESS",
        "isolated = agent.isolation == Isolation.PROCESS",
        f"{ISOLATION}::test_a_suspect_runs_in_a_process_of_its_own",
    ),
    "what a dying worker named is not heard": Mutant(
        "P6",
        "orchestrator/runtime/dispatcher.py",
        "        return neighbours.named() if again and neighbours is not None else frozenset()\n",
        "        return frozenset()\n",
        "tests/acceptance/test_promises.py"
        "::test_on_one_machine_the_dead_worker_names_the_task_that_it_died_in",
    ),
    "a blocked loop keeps what it has not read": Mutant(
        "P5",
        "orchestrator/runtime/lease.py",
        "        await self._give_back_unread(streams)\n",
        "",
        "tests/acceptance/test_promises.py::test_what_a_blocked_loop_has_not_read_begins_elsewhere",
    ),
    "what may not begin ends another's task": Mutant(
        "P10",
        "orchestrator/runtime/flight.py",
        "case Ending(task=None) | Ending(outcome=Postponed()):",
        "case Ending():",
        f"{ATTACKS}::test_what_may_not_begin_does_not_end_the_task_whose_id_it_took",
    ),
    "one refused message keeps the others from being read": Mutant(
        "P10",
        "orchestrator/streams/batch.py",
        "        except Rejected as error:\n",
        "        except ZeroDivisionError as error:\n",
        "tests/unit/test_batch.py::test_a_worker_boards_each_in_its_place",
    ),
    "what is refused gives up its place": Mutant(
        "P10",
        "orchestrator/streams/batch.py",
        "            found.append(Refused(error.reason, str(error)))\n",
        "            found.insert(0, Refused(error.reason, str(error)))\n",
        "tests/unit/test_batch.py::test_a_recorder_reads_each_in_its_place",
    ),
    "an entry id of no year ends its readers": Mutant(
        "P10",
        "orchestrator/streams/message.py",
        "    except (ValueError, OverflowError, OSError):\n        return LATEST",
        "    except ZeroDivisionError:\n        return LATEST",
        "tests/unit/test_message.py::test_an_entry_id_of_no_year_is_read",
    ),
    "the past is kept while memory is short": Mutant(
        "P8",
        "orchestrator/services/janitor.py",
        "if kept and (full or await",
        "if kept and (await",
        f"{RECORDING}::test_the_past_goes_first_where_memory_is_short",
    ),
    "the death of its own process is no start": Mutant(
        "P6",
        "orchestrator/runtime/completion.py",
        "    crashes = ending.crashes + _crashed(ending)\n",
        "    crashes = ending.crashes\n",
        f"{ISOLATION}::test_three_deaths_are_recorded_and_set_it_aside",
    ),
    "a child's own children survive it": Mutant(
        "P6",
        "orchestrator/runtime/child_process.py",
        "os.killpg(self.pid, signal.SIGKILL)",
        "os.kill(self.pid, signal.SIGKILL)",
        f"{ISOLATION}::test_at_the_deadline_it_is_killed_with_all_that_it_started[sleeps]",
    ),
    "a child survives its worker": Mutant(
        "P6",
        "orchestrator/runtime/child.py",
        "        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)\n",
        "        pass\n",
        f"{ISOLATION}::test_a_killed_workers_children_die_with_it[holds_the_lock]",
    ),
    "a result from whoever finds the channel": Mutant(
        "P6",
        "orchestrator/runtime/isolated.py",
        'if said["nonce"] != self._nonce:',
        "if False:",
        f"{ISOLATION}::test_a_child_that_dies_is_a_crash_of_its_attempt[poison-forges]",
    ),
    "a forked process ends the attempt": Mutant(
        "P6",
        "orchestrator/runtime/uplink.py",
        "        os.register_at_fork(after_in_child=self._cut)\n",
        "",
        f"{ISOLATION}::test_a_forked_process_has_no_say",
        # The step of the agent that forks would end the copy as well, if it says nothing before.
        also=(("orchestrator/runtime/forked.py", "    if _forks != mine:\n", "    if False:\n"),),
    ),
    "passwords in a child's environment": Mutant(
        "P6",
        "orchestrator/runtime/child_process.py",
        " if not k.startswith(WITHHELD)",
        "",
        f"{ISOLATION}::test_no_password_is_in_its_environment",
    ),
    "a child's output goes into the record unread": Mutant(
        "P10",
        "orchestrator/runtime/dialogue.py",
        "        from_json(found.output, allow_inf_nan=False)\n",
        "",
        "tests/unit/test_dialogue.py::test_an_output_that_is_none_is_refused",
    ),
    "no admission control": Mutant(
        "P8",
        "orchestrator/runtime/room.py",
        "if self._memory_share >= REFUSE_AT:",
        "if False:",
        f"{RECORDING}::test_submission_is_refused_while_redis_is_nearly_full",
    ),
    "a bulk of any size goes out at once": Mutant(
        "P8",
        "orchestrator/streams/publisher.py",
        "                if len(writes) == AT_ONCE:\n",
        "                if False:\n",
        "tests/integration/test_publisher.py::test_many_are_written_a_few_at_a_time",
    ),
    "a backlog without end": Mutant(
        "P8",
        "orchestrator/runtime/room.py",
        "if self._backlog >= self.max_backlog:",
        "if False:",
        f"{RECORDING}::test_submission_is_refused_while_too_much_waits",
    ),
    "what is accepted is published past every limit": Mutant(
        "P8",
        "orchestrator/runtime/submitter.py",
        "await self._publish(tasks[:room])",
        "await self._publish(tasks)",
        f"{BACKPRESSURE}::test_what_is_accepted_waits_in_postgres_while_redis_has_its_fill",
    ),
    "the reconciler publishes past every limit": Mutant(
        "P8",
        "orchestrator/services/reconciler.py",
        "(await self._lost(unchanged))[:most]",
        "await self._lost(unchanged)",
        f"{BACKPRESSURE}::test_what_is_accepted_waits_in_postgres_while_redis_has_its_fill",
    ),
    "the reconciler fills the last of the memory": Mutant(
        "P8",
        "orchestrator/runtime/room.py",
        "if self._memory_share >= DEFER_AT:",
        "if False:",
        f"{BACKPRESSURE}::test_what_is_accepted_waits_in_postgres_while_redis_is_nearly_full",
    ),
    "workers read on while Redis is nearly full": Mutant(
        "P8",
        "orchestrator/runtime/pressure.py",
        "        if share >= STOP_READING_AT:\n",
        "        if False:\n",
        f"{BACKPRESSURE}::test_a_worker_stops_reading_before_redis_is_full",
    ),
    "workers read on while the recorder is far behind": Mutant(
        "P8",
        "orchestrator/runtime/pressure.py",
        "elif lag >= RECORDER_LAG:",
        "elif False:",
        f"{BACKPRESSURE}::test_a_worker_stops_reading_before_redis_is_full",
    ),
    "nobody tidies while Redis is full": Mutant(
        "P8",
        "orchestrator/streams/scripts/hold.lua",
        "#!lua flags=allow-oom",
        "#!lua",
        f"{BACKPRESSURE}::test_redis_is_tidied_although_it_is_full",
    ),
    "two recorders tell of one beginning twice": Mutant(
        "P4",
        "orchestrator/db/recording.py",
        "        if made < len(writes.tasks.keys() - found):\n",
        "        if False:\n",
        f"{ATTACKS}::test_two_recorders_at_one_time_tell_of_one_beginning",
    ),
    "however large a batch is, it is one transaction": Mutant(
        "P8",
        "orchestrator/services/portions.py",
        "if size > PORTION_BYTES and place > first:",
        "if False:",
        f"{RECORDING}::test_large_results_that_wait_are_recorded_in_portions",
    ),
    "however large its results are, a group goes in one call": Mutant(
        "P8",
        "orchestrator/runtime/completion.py",
        "            if size > GROUP_BYTES:\n",
        "            if False:\n",
        "tests/unit/test_completion.py::test_a_group_is_bounded_by_number_and_by_size",
    ),
    "however large they are, ten thousand results are kept for waits": Mutant(
        "P8",
        "orchestrator/streams/tail.py",
        " or self._recent_bytes > RECENT_BYTES:",
        ":",
        "tests/unit/test_tail.py::test_ends_are_remembered_up_to_a_number_and_up_to_a_size",
    ),
    "however many are submitted together, it is one statement": Mutant(
        "P8",
        "orchestrator/db/accepting.py",
        "ordered[start : start + STATEMENT]]",
        "ordered[start:]]",
        f"{RECORDING}::test_many_are_accepted_in_statements_and_all_or_none",
    ),
    "one bad row fails its batch": Mutant(
        "P10",
        "orchestrator/services/recorder.py",
        "            if len(batch) > 1:\n",
        "            if False:\n",
        f"{RECORDING}::test_one_bad_row_does_not_hold_up_its_batch",
    ),
    "one refused task fails those it shares a commit with": Mutant(
        "P10",
        "orchestrator/runtime/group_commit.py",
        "        except OrchestratorError:\n",
        "        except Exception:\n",
        f"{GROUPS}::test_a_refused_row_fails_alone",
    ),
    "many wait for a row that one of them needs": Mutant(
        "P10",
        "orchestrator/db/accepting.py",
        "(SELECT set_config('lock_timeout', '{PATIENCE}', true)) <> ''",
        "true",
        f"{GROUPS}::test_a_row_that_somebody_holds_keeps_only_its_own_caller",
    ),
    "an end read again is called superseded": Mutant(
        "P7",
        "orchestrator/fold.py",
        "if told == (record.state, record.attempt, record.worker, record.finished_at):",
        "if False:",
        "tests/unit/test_record.py::test_an_end_that_is_read_again_is_no_second_end",
    ),
    "a later message overtakes the one that waits": Mutant(
        "P4",
        "orchestrator/services/pairing.py",
        "released += [self._release(task_id), item]",
        "released.append(item)",
        "tests/unit/test_pairing.py::test_a_second_message_of_a_task_does_not_overtake_the_first",
    ),
    "who gives up takes the next one's answer": Mutant(
        "P4",
        "orchestrator/streams/channel.py",
        "if not call.answered.done():\n                    call",
        "if True:\n                    call",
        f"{CHANNEL}::test_who_gives_up_does_not_shift_the_answers",
    ),
    "who gives up cuts his command short": Mutant(
        "P1",
        "orchestrator/streams/channel.py",
        "SMALL = 32 * 1024",
        "SMALL = 1 << 40",
        f"{CHANNEL}::test_who_gives_up_while_he_sends_does_not_cut_his_command_short",
    ),
    "a process that stood still gives its connection up": Mutant(
        "P4",
        "orchestrator/streams/channel.py",
        "elif oldest is not self._overdue:",
        "elif False:",
        f"{CHANNEL}::test_a_process_that_stood_still_reads_what_arrived_meanwhile",
    ),
    "a clock that went back is not noticed": Mutant(
        "P5",
        "orchestrator/streams/consumer.py",
        "        if behind:\n",
        "        if False:\n",
        "tests/integration/test_clock.py"
        "::test_what_the_dead_have_in_hand_does_not_wait_for_a_clock_that_went_back",
    ),
    "a silent connection to Postgres is waited for": Mutant(
        "P4",
        "orchestrator/db/session.py",
        '                "command_timeout": answer_timeout,\n',
        "",
        "tests/integration/test_silence.py::test_a_connection_that_says_nothing_is_given_up",
    ),
    "a blocking read is waited for": Mutant(
        "P5",
        "orchestrator/streams/connection.py",
        "timeout=READER_TIMEOUT)",
        "timeout=86_400.0)",
        "tests/integration/test_silence.py::test_a_blocking_read_that_is_not_answered_is_given_up",
    ),
    "stays with a primary that is a replica now": Mutant(
        "P1",
        "orchestrator/streams/channel.py",
        "if isinstance(reply, ReadOnlyError):",
        "if False:",
        f"{CHANNEL}::test_a_primary_that_became_a_replica_is_left",
    ),
    "a live client's queue without end": Mutant(
        "P8",
        "orchestrator/streams/live.py",
        "        if len(self._waiting) > MOST_MESSAGES or self._bytes > MOST_BYTES:\n",
        "        if False:\n",
        f"{LIVE}::test_a_slow_client_is_told_where_to_go_on",
    ),
    "the tail repeats what the past has told": Mutant(
        "P10",
        "orchestrator/api/feed.py",
        "            if message.entry_id > at[message.source]:\n",
        "            if True:\n",
        f"{LIVE}::test_what_the_past_has_read_the_tail_does_not_repeat",
    ),
    "infinity is let in": Mutant(
        "P10",
        "orchestrator/streams/message.py",
        "if _holds_infinity(data):",
        "if False:",
        "tests/unit/test_message.py::test_json_that_is_none",
    ),
    "secrets in the audit": Mutant(
        "P10",
        "orchestrator/db/recording.py",
        "(kept := redacted(each)) is not each",
        "(kept := each) is not each",
        "tests/integration/test_api_lists.py::test_a_secret_does_not_reach_the_audit",
    ),
    "a reading is acknowledged before it is published": Mutant(
        "P4",
        "orchestrator/services/bridge.py",
        "            if not await self._publish(decided, connection):\n",
        "            for each in batch:\n                connection.acknowledge(each)\n"
        "            if not await self._publish(decided, connection):\n",
        f"{BRIDGE}::test_nothing_is_acknowledged_while_redis_is_away",
    ),
    "a limit is told to nobody else": Mutant(
        "P8",
        "orchestrator/streams/scripts/admit.lua",
        "if gate.closed_by and now < gate.closed_until then",
        "if false then",
        "tests/integration/test_gates.py::test_a_refusal_closes_it_for_all_once",
    ),
    "everybody looks whether an outage is over": Mutant(
        "P8",
        "orchestrator/streams/scripts/admit.lua",
        "  gate.probe_until = now + PROBE\n",
        "",
        "tests/integration/test_gates.py::test_an_outage_is_looked_into_by_one_at_a_time",
    ),
    "an answer is kept with our key in it": Mutant(
        "P10",
        "orchestrator/models/metered.py",
        "        response = cleaned(response, self.scrub)\n",
        "",
        "tests/integration/test_model_secrets.py::"
        "test_a_key_is_nowhere_also_when_its_provider_says_it",
    ),
    "a budget is spent and then looked at": Mutant(
        "P8",
        "orchestrator/runtime/model_access.py",
        "        if over is not None:\n",
        "        if False:\n",
        "tests/integration/test_model_failures.py::"
        "test_a_model_that_loops_is_stopped_before_the_call_that_passes_its_budget",
    ),
    "the bridge's session ends with its connection": Mutant(
        "P4",
        "orchestrator/mqtt.py",
        "clean_start=self._broker.clean",
        "clean_start=True",
        f"{BRIDGE}::test_what_is_said_while_the_bridge_is_away_is_there_on_its_return",
    ),
}


def without(name: str, servers: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the mutant's test in a copy of the tree without its guard."""
    with tempfile.TemporaryDirectory(prefix="aurora-mutant-") as directory:
        mutant = MUTANTS[name]
        take_away(mutant, Path(directory))
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutant.test],
            cwd=directory,
            env={**os.environ, **servers, "PYTHONPATH": directory},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )


@pytest.mark.mutants
@pytest.mark.parametrize("name", MUTANTS)
def test_without_its_guard_the_promise_breaks(name, ran):
    """The test that holds the promise goes red."""
    # 1: tests ran and some failed. Anything else would be a broken mutant, not a bitten one.
    assert ran.returncode == 1, f"{MUTANTS[name].promise}: survived\n{ran.stdout[-3000:]}"
