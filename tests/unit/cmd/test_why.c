/* Situations, and what `rserve status --why` says of them: testdata/why/NAME.json -> NAME.txt, through
 * the real controller and agents on a clock that jumps (tests/unit/sched/world.h).
 *
 * A situation: {"about", "behaviours": [{"deployment", "start_s", ..}], "broken", "hangs": import paths,
 * "graph", "policy": {"wants", "error"}, "steps": [[VERB, ..], ..], "ask": "APP#DEPLOYMENT#REPLICA" (a
 * REPLICA "*" is the first that is found)}. RSERVE_WRITE_GOLDEN=1 writes the .txt files.
 */
#include "cmd/status-why.h"

#include "cmd/status-events.h"
#include "core/base/json.h"
#include "core/base/text.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

#include <dirent.h>
#include <stdlib.h>

enum { CASES_MAX = 200, BEHAVIOURS_MAX = 8 };

static char *cases[CASES_MAX];
static int n_cases;
static struct world w;
static struct behaviour behaviours[BEHAVIOURS_MAX];

static const char *folder(void)
{
    static char path[1000];
    const char *root = getenv("RSERVE_SOURCE");

    snprintf(path, sizeof(path), "%s/testdata/why", root ? root : ".");
    return path;
}

static int is_case(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return n > 5 && strcmp(e->d_name + n - 5, ".json") == 0;
}

static int find_cases(void)
{
    struct dirent **list = NULL;
    int n = scandir(folder(), &list, is_case, alphasort);

    for (int i = 0; i < n; i++) {
        if (n_cases < CASES_MAX)
            cases[n_cases++] = strndup(list[i]->d_name, strlen(list[i]->d_name) - 5);
        free(list[i]);
    }
    free(list);
    return n_cases;
}

/* --- situations ---------------------------------------------------------------------------------- */

static int64_t ns(const json_t *of, const char *key)
{
    return (int64_t)(rs_json_num(of, key, 0) * 1e9);
}

static size_t read_behaviours(const json_t *list)
{
    const json_t *b;
    size_t i;

    ck_assert_uint_le(json_array_size(list), BEHAVIOURS_MAX);
    json_array_foreach (list, i, b)
        behaviours[i] = (struct behaviour){
            .deployment = rs_json_str(b, "deployment", ""),
            .start = ns(b, "start_s"),
            .fail_starts = (unsigned)rs_json_int(b, "fail_starts", 0),
            .exit_silently = rs_json_bool(b, "exit_silently", false),
            .deaf = rs_json_bool(b, "deaf", false),
            .sick = rs_json_bool(b, "sick", false),
            .bad_config = rs_json_bool(b, "bad_config", false),
            .busy = ns(b, "busy_s"),
            .stubborn = rs_json_bool(b, "stubborn", false),
            .room = (unsigned)rs_json_int(b, "room", 0),
        };
    return json_array_size(list);
}

static const char *text_at(const json_t *step, size_t i)
{
    return json_string_value(json_array_get(step, i));
}

static unsigned int_at(const json_t *step, size_t i)
{
    return (unsigned)json_integer_value(json_array_get(step, i));
}

static void join(const json_t *step)
{
    rs_auto(rs_freep) char *resources = rs_json_dump(json_array_get(step, 2));
    const json_t *labels = json_array_get(step, 3);
    rs_auto(rs_freep) char *text = labels ? rs_json_dump(labels) : NULL;

    w.labels = text;
    world_join(&w, int_at(step, 1), resources);
    w.labels = NULL;
}

static void follow(const json_t *step)
{
    const char *verb = text_at(step, 0);

    if (strcmp(verb, "join") == 0) {
        join(step);
    } else if (strcmp(verb, "apply") == 0) {
        rs_auto(rs_freep) char *config = rs_json_dump(json_array_get(step, 1));

        world_apply(&w, config);
    } else if (strcmp(verb, "delete") == 0) {
        ck_assert(rs_controller_delete(w.controller, text_at(step, 1), w.now));
    } else if (strcmp(verb, "run") == 0) {
        world_run(&w, (int64_t)(json_number_value(json_array_get(step, 1)) * 1e9));
    } else if (strcmp(verb, "load") == 0) {
        world_load(&w, text_at(step, 1), int_at(step, 2));
    } else if (strcmp(verb, "kill") == 0) {
        ck_assert(world_kill_one(&w, text_at(step, 1)));
    } else if (strcmp(verb, "leave") == 0) {
        world_leave(&w, int_at(step, 1));
    } else if (strcmp(verb, "drain") == 0) {
        rs_agent_drain(w.nodes[int_at(step, 1)].agent, w.now);
    } else if (strcmp(verb, "refused") == 0) {
        world_refused(&w, json_array_get(step, 1));
    } else if (strcmp(verb, "health") == 0) {
        world_health(&w, text_at(step, 1), json_array_get(step, 2));
    } else if (strcmp(verb, "serve") == 0) { /* by each version: requests, of those failed, ms */
        world_served(&w, 0, false, int_at(step, 1), int_at(step, 2), int_at(step, 3) * RS_MS);
        world_served(&w, 0, true, int_at(step, 4), int_at(step, 5), int_at(step, 6) * RS_MS);
    } else if (strcmp(verb, "dropped") == 0) {
        world_dropped(&w, text_at(step, 1), int_at(step, 2), int_at(step, 3));
    } else if (strcmp(verb, "fail") == 0) {
        world_behaviour(&w, text_at(step, 1))->fail_starts = int_at(step, 2);
    } else if (strcmp(verb, "sick") == 0) {
        world_behaviour(&w, text_at(step, 1))->sick = true;
    } else if (strcmp(verb, "policy") == 0) {
        w.policy.wants = json_number_value(json_array_get(step, 1));
        w.policy.error = text_at(step, 2);
    } else if (strcmp(verb, "scale") == 0) {
        ck_assert_int_eq(rs_controller_scale(w.controller, text_at(step, 1), text_at(step, 2),
                                             int_at(step, 3), w.now, NULL),
                         0);
    } else {
        ck_abort_msg("no such step: %s", verb);
    }
}

/* The first replica of the deployment, or the first of those that ended. */
static const char *any_replica(const struct rs_status_subject *of, bool dead)
{
    rs_auto(rs_freep) char *path =
        rs_asprintf("applications.%s.deployments.%s.%s.0.replica_id", of->app, of->deployment,
                    dead ? "recent_dead_replicas" : "replicas");

    return world_text(&w, path);
}

static json_t *ask(const char *text, struct rs_error *err)
{
    rs_auto(rs_status_subject_fini) struct rs_status_subject s = {0};
    rs_auto(rs_freep) char *id = NULL;
    json_t *answer = NULL;

    rs_status_subject_parse(&s, text);
    if (s.replica && (strcmp(s.replica, "*") == 0 || strcmp(s.replica, "+") == 0))
        id = rs_strdup(any_replica(&s, *s.replica == '+'));
    const struct rs_controller_subject of = {s.app, s.deployment, id ? id : s.replica};

    if (rs_controller_why(w.controller, &of, w.now, &answer, err) < 0)
        return NULL;
    return answer;
}

static json_t *play(const char *name)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/%s.json", folder(), name);
    json_error_t why;
    json_t *situation = json_load_file(path, 0, &why), *step;
    const char *graph, *ask_for;
    size_t i, n;
    struct rs_error err = {0};
    json_t *answer;

    ck_assert_msg(situation, "%s:%d: %s", path, why.line, why.text);
    ck_assert_ptr_nonnull(json_object_get(situation, "about"));
    n = read_behaviours(json_object_get(situation, "behaviours"));
    world_open(&w, behaviours, n);
    graph = rs_json_str(situation, "graph", NULL);
    w.graph = graph ? graph : w.graph;
    w.broken = rs_json_str(situation, "broken", NULL);
    w.hangs = rs_json_str(situation, "hangs", NULL);
    w.policy.wants = 1;
    w.env = rs_json_bool(situation, "env_broken", false)  ? ENV_BROKEN
            : rs_json_bool(situation, "env_hangs", false) ? ENV_HANGS
                                                          : ENV_OK;
    json_array_foreach (json_object_get(situation, "steps"), i, step)
        follow(step);
    ask_for = rs_json_str(situation, "ask", "");
    answer = ask(ask_for, &err);
    ck_assert_msg(answer, "%s", err.msg);
    world_close(&w);
    json_decref(situation);
    return answer;
}

/* --- what is said -------------------------------------------------------------------------------- */

static char *load(const char *path)
{
    struct rs_buf b = {0};
    FILE *f = fopen(path, "r");
    size_t n;

    while (f && (n = fread(rs_buf_reserve(&b, 4096), 1, 4096, f)) > 0)
        rs_buf_commit(&b, n);
    if (f)
        fclose(f);
    return rs_buf_len(&b) ? rs_buf_steal(&b) : rs_strdup("");
}

static void compare(const char *name, const char *got)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/%s.txt", folder(), name);
    rs_auto(rs_freep) char *want = NULL;

    if (getenv("RSERVE_WRITE_GOLDEN")) {
        FILE *f = fopen(path, "w");

        ck_assert_ptr_nonnull(f);
        fputs(got, f);
        fclose(f);
    }
    want = load(path);
    ck_assert_msg(strcmp(want, got) == 0, "%s differs from:\n%s", path, got);
}

START_TEST(situations)
{
    rs_auto(rs_json_decrefp) json_t *answer = play(cases[_i]);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    const struct rs_why_style style = {.width = 80};

    rs_status_why(answer, &style, &out);
    for (const char *at = rs_buf_text(&out); *at; at += strcspn(at, "\n") + 1)
        ck_assert_msg(rs_text_width(at, strcspn(at, "\n")) <= 80, "%.*s", (int)strcspn(at, "\n"),
                      at);
    compare(cases[_i], rs_buf_text(&out));
}
END_TEST

/* Every reason that is more than a note says what to do, or that nothing is to be done. */
static void check_reasons(const json_t *list)
{
    const json_t *r;
    size_t i;

    json_array_foreach (list, i, r) {
        const char *cause = rs_json_str(r, "cause", "");

        ck_assert_msg(json_array_size(json_object_get(r, "text")) > 0, "%s", cause);
        ck_assert_msg(strcmp(text_at(json_object_get(r, "text"), 0), cause) != 0,
                      "%s has no text of its own", cause);
        if (strcmp(rs_json_str(r, "weight", ""), "note") != 0)
            ck_assert_msg(*rs_json_str(r, "next", ""), "%s does not say what to do", cause);
    }
}

START_TEST(each_reason_says_what_to_do)
{
    rs_auto(rs_json_decrefp) json_t *answer = play(cases[_i]);
    const char *name;
    json_t *app, *d;

    json_object_foreach (json_object_get(answer, "applications"), name, app) {
        check_reasons(json_object_get(app, "reasons"));
        json_object_foreach (json_object_get(app, "deployments"), name, d)
            check_reasons(json_object_get(d, "reasons"));
    }
}
END_TEST

/* In a terminal of any width, and with colours: nothing crashes, no line is too long. */
START_TEST(any_width)
{
    rs_auto(rs_json_decrefp) json_t *answer = play(cases[_i]);

    for (size_t width = 40; width < 200; width += 15) {
        rs_auto(rs_buf_fini) struct rs_buf out = {0};
        const struct rs_why_style style = {.width = width, .color = width > 100};

        rs_status_why(answer, &style, &out);
        ck_assert_uint_gt(rs_buf_len(&out), 0);
        for (const char *at = rs_buf_text(&out); *at && !style.color; at += strcspn(at, "\n") + 1)
            ck_assert_uint_le(rs_text_width(at, strcspn(at, "\n")), width);
    }
}
END_TEST

START_TEST(there_are_enough)
{
    ck_assert_int_ge(n_cases, 25);
}
END_TEST

START_TEST(who_is_not_there)
{
    static const struct {
        const char *ask, *error;
    } asks[] = {
        {"y", "there is no application 'y'"},
        {"x#B", "application 'x' has no deployment 'B'"},
        {"x#A#zzz", "no replica 'zzz' of 'x#A' runs, and none of that name is among the last that "
                    "ended (rserve status --events shows what happened)"},
    };

    world_open(&w, NULL, 0);
    world_join(&w, 0, "{\"CPU\": 2}");
    world_apply(&w, "applications:\n- {name: x, import_path: m:app}\n");
    world_run(&w, RS_SEC);
    for (size_t i = 0; i < RS_COUNT(asks); i++) {
        struct rs_error err = {0};

        ck_assert_ptr_null(ask(asks[i].ask, &err));
        ck_assert_str_eq(err.msg, asks[i].error);
        ck_assert_int_eq(err.code, RS_NOT_FOUND);
    }
    world_close(&w);
}
END_TEST

/* Whatever answers: nothing of it makes the text crash. */
START_TEST(odd_answers)
{
    static const char *const odd[] = {
        "{}",
        "[]",
        "{\"applications\": 3}",
        "{\"applications\": {\"x\": null}}",
        "{\"applications\": {\"x\": {\"reasons\": {}, \"deployments\": []}}}",
        "{\"applications\": {\"x\": {\"reasons\": [1, {}, {\"text\": 5}, {\"text\": [1, null]}]}}}",
        ("{\"applications\": {\"x\": {\"reasons\": [{\"text\": [\"a\\u001b[2Jb\"], \"what\": "
         "\"\\n\"}]}}}"),
    };
    const struct rs_why_style style = {.width = 80, .color = true};

    for (size_t i = 0; i < RS_COUNT(odd); i++) {
        rs_auto(rs_json_decrefp) json_t *answer = json_loads(odd[i], 0, NULL);
        rs_auto(rs_buf_fini) struct rs_buf out = {0};

        rs_status_why(answer, &style, &out);
        ck_assert_ptr_null(strchr(rs_buf_text(&out), '\x1b'));
    }
}
END_TEST

RS_CHECK_MAIN("why", tcase_add_test(tc, there_are_enough); tcase_add_test(tc, who_is_not_there);
              tcase_add_test(tc, odd_answers); int n = find_cases();
              tcase_add_loop_test(tc, situations, 0, n);
              tcase_add_loop_test(tc, each_reason_says_what_to_do, 0, n);
              tcase_add_loop_test(tc, any_width, 0, n);)
