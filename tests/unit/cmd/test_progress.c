#include "cmd/progress.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "tests/unit/check_main.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define D(name, status, running, target, message)                                                  \
    {                                                                                              \
        name, status, message, running, target                                                     \
    }

static const char failure[] =
    "The deployment failed to start 3 times in a row due to a problem with its constructor:\n"
    "Traceback (most recent call last):\n"
    "  File \"/run/rserve/lib.zip/rserve/_replica.py\", line 10, in make\n"
    "    return cls(*args)\n"
    "           ^^^^^^^^^^\n"
    "  File \"/home/u/app.py\", line 7, in __init__\n"
    "    raise RuntimeError(\"no\")\n"
    "RuntimeError: no\n";
static const char own_lines[] = "Traceback (most recent call last):\n"
                                "  File \"/home/u/app.py\", line 7, in __init__\n"
                                "    raise RuntimeError(\"no\")\n"
                                "RuntimeError: no\n";

static struct rs_progress_deployment first[] = {D("Normalizer", "UPDATING", 0, 2, ""),
                                                D("Generator", "UPDATING", 0, 1, "")};
static struct rs_progress_deployment second[] = {
    D("Normalizer", "UPDATING", 1, 2, NULL),
    D("Generator", "UPDATING", 0, 1, "needs 1 GPU; node has 0")};
static struct rs_progress_deployment third[] = {D("Normalizer", "HEALTHY", 2, 2, ""),
                                                D("Generator", "HEALTHY", 1, 1, "")};
static struct rs_progress_deployment broken[] = {D("Normalizer", "HEALTHY", 2, 2, ""),
                                                 D("Generator", "DEPLOY_FAILED", 0, 1, failure)};
static struct rs_progress_deployment dead[] = {D("Normalizer", "HEALTHY", 2, 2, ""),
                                               D("Generator", "UNHEALTHY", 0, 1, "gone")};

static struct rs_progress_deployment vague[] = {D("Normalizer", "HEALTHY", 2, 2, ""),
                                                D("Generator", "DEPLOY_FAILED", 0, 1, "gave up")};

#define APP(status, message, deployments)                                                          \
    {                                                                                              \
        "rag", "/", status, message, deployments, 2                                                \
    }
static const struct rs_progress_app steps[] = {
    APP("DEPLOYING", "", first),
    APP("DEPLOYING", "", second),
    APP("RUNNING", "", third),
    APP("DEPLOY_FAILED", "Failed to update the deployments ['Generator'].", broken),
    APP("UNHEALTHY", "The deployments ['Generator'] are UNHEALTHY.", dead),
    {"rag", "/", "DEPLOY_FAILED", failure, NULL, 0},
    {"rag", NULL, "DEPLOYING", "", NULL, 0},
    APP("DEPLOYING", "", broken),
    APP("DEPLOY_FAILED", failure, vague),
    {"rag", NULL, "DEPLOYING", "installing torch", NULL, 0},
};

enum { DEPLOYING, STUCK, READY, BROKEN, DEAD, IMPORT, BEGINS, BREAKING, VAGUE, BUILDS };

/* Steps are 200 ms apart; -1 ends a list, -2 is a snapshot without applications. */
static char *play(const struct rs_progress_conf *conf, const int *list)
{
    rs_auto(rs_progress_freep) struct rs_progress *p = rs_progress_new(conf, 5 * RS_SEC);
    struct rs_buf out = {0};
    int64_t now = 5 * RS_SEC;

    for (; *list != -1; list++) {
        struct rs_progress_snapshot s = {.n_apps = *list >= 0};

        s.apps = *list >= 0 ? &steps[*list] : NULL;
        now += 200 * RS_MS;
        rs_progress_feed(p, &s, now, &out);
        rs_progress_feed(p, &s, now, &out); /* the same again: nothing to say */
    }
    return rs_buf_steal(&out);
}

#define URL .url = "http://127.0.0.1:8000"
static const struct {
    struct rs_progress_conf conf;
    int list[8];
    const char *want;
} plays[] = {
    /* plain lines */
    {{URL, .width = 80},
     {DEPLOYING, STUCK, READY, -1},
     "rag: DEPLOYING\n"
     "rag: Generator 0/1 replicas, UPDATING: needs 1 GPU; node has 0\n"
     "rag: Normalizer 2/2 replicas\n"
     "rag: Generator 1/1 replicas\n"
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.60 s\n"},
    {{URL, .width = 80, .verbose = true},
     {DEPLOYING, STUCK, READY, -1},
     "rag: DEPLOYING\n"
     "rag: Normalizer 0/2 replicas, UPDATING\n"
     "rag: Generator 0/1 replicas, UPDATING\n"
     "rag: Normalizer 1/2 replicas, UPDATING\n"
     "rag: Generator 0/1 replicas, UPDATING: needs 1 GPU; node has 0\n"
     "rag: Normalizer 2/2 replicas, HEALTHY\n"
     "rag: Generator 1/1 replicas, HEALTHY\n"
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.60 s\n"},
    {{URL, .width = 80, .quiet = true}, {DEPLOYING, STUCK, READY, -1}, ""},
    {{URL, .width = 80},
     {BEGINS, BUILDS, BEGINS, READY, -1},
     "rag: DEPLOYING\n"
     "rag: DEPLOYING: installing torch\n"
     "rag: Normalizer 2/2 replicas\n"
     "rag: Generator 1/1 replicas\n"
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.80 s\n"},
    {{URL, .width = 40, .height = 24, .tty = true},
     {BUILDS, -1},
     "rag  DEPLOYING  0.2 s  installing torch\n"},
    {{.url = NULL, .width = 80},
     {READY, -2, -1},
     "ready: rag  (not on HTTP)  2 deployments, 3 replicas, 0.20 s\nrag: deleted\n"},
    /* a second deploy has a time of its own; a fall and its end are told */
    {{URL, .width = 80},
     {READY, DEPLOYING, READY, DEAD, READY, -1},
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.20 s\n"
     "rag: DEPLOYING\n"
     "rag: Normalizer 2/2 replicas\n"
     "rag: Generator 1/1 replicas\n"
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.20 s\n"
     "unhealthy: rag#Generator: gone\n"
     "rag: RUNNING\n"},
    /* failures, once */
    {{URL, .width = 80, .quiet = true},
     {DEPLOYING, BREAKING, BROKEN, BROKEN, -1},
     "Traceback (most recent call last):\n"
     "  File \"/home/u/app.py\", line 7, in __init__\n"
     "    raise RuntimeError(\"no\")\n"
     "RuntimeError: no\n"
     "failed: rag#Generator: The deployment failed to start 3 times in a row due to a problem with "
     "its constructor: RuntimeError: no\n"},
    /* one of an earlier deploy is not of this one */
    {{URL, .width = 80, .quiet = true}, {BREAKING, DEPLOYING, -1}, ""},
    {{URL, .width = 80},
     {VAGUE, -1},
     "failed: rag#Generator: gave up\n"
     "Traceback (most recent call last):\n"
     "  File \"/home/u/app.py\", line 7, in __init__\n"
     "    raise RuntimeError(\"no\")\n"
     "RuntimeError: no\n"
     "failed: rag: The deployment failed to start 3 times in a row due to a problem with its "
     "constructor: RuntimeError: no\n"},
    {{URL, .width = 80, .color = true},
     {IMPORT, -1},
     "Traceback (most recent call last):\n"
     "  File \"/home/u/app.py\", line 7, in __init__\n"
     "    raise RuntimeError(\"no\")\n"
     "RuntimeError: no\n"
     "\x1b[31mfailed:\x1b[0m rag: The deployment failed to start 3 times in a row due to a problem "
     "with its constructor: RuntimeError: no\n"},
    {{URL, .width = 80, .color = true},
     {READY, -1},
     "\x1b[32mready:\x1b[0m rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.20 s\n"},
    /* the block of a terminal */
    {{URL, .width = 60, .height = 24, .tty = true},
     {BEGINS, DEPLOYING, STUCK, READY, -1},
     "rag  DEPLOYING  0.2 s\n"
     "\r\x1b[1A\x1b[J"
     "rag  /  DEPLOYING  0.4 s\n"
     "  Normalizer  0/2 replicas\n"
     "  Generator   0/1 replicas\n"
     "\r\x1b[3A\x1b[J"
     "rag  /  DEPLOYING  0.6 s\n"
     "  Normalizer  1/2 replicas\n"
     "  Generator   0/1 replicas  needs 1 GPU; node has 0\n"
     "\r\x1b[3A\x1b[J"
     "ready: rag  http://127.0.0.1:8000/  2 deployments, 3 replicas, 0.80 s\n"},
    {{URL, .width = 60, .height = 24, .tty = true, .color = true},
     {STUCK, -1},
     "\x1b[33mrag  /  DEPLOYING  0.2 s\x1b[0m\n"
     "  Normalizer  1/2 replicas\n"
     "  Generator   0/1 replicas  needs 1 GPU; node has 0\n"},
    {{URL, .width = 40, .height = 24, .tty = true},
     {STUCK, -1},
     "rag  /  DEPLOYING  0.2 s\n"
     "  Normalizer  1/2 replicas\n"
     "  Generator   0/1 replicas  needs 1 ...\n"},
    {{URL, .width = 80, .height = 3, .tty = true},
     {STUCK, -1},
     "rag  /  DEPLOYING  0.2 s\n"
     "  ... and 2 more\n"},
    {{URL, .width = 80, .height = 24, .tty = true, .quiet = true}, {STUCK, READY, -1}, ""},
    /* JSON, also on a terminal */
    {{URL, .width = 80, .height = 24, .tty = true, .color = true, .json = true},
     {BEGINS, READY, -2, -1},
     "{\"event\":\"application\",\"elapsed_ms\":200,\"application\":\"rag\","
     "\"status\":\"DEPLOYING\",\"message\":\"\"}\n"
     "{\"event\":\"deployment\",\"elapsed_ms\":400,\"application\":\"rag\","
     "\"deployment\":\"Normalizer\",\"status\":\"HEALTHY\",\"running\":2,\"target\":2,\"message\":"
     "\"\"}\n"
     "{\"event\":\"deployment\",\"elapsed_ms\":400,\"application\":\"rag\","
     "\"deployment\":\"Generator\",\"status\":\"HEALTHY\",\"running\":1,\"target\":1,\"message\":"
     "\"\"}\n"
     "{\"event\":\"ready\",\"elapsed_ms\":400,\"application\":\"rag\",\"url\":"
     "\"http://127.0.0.1:8000/\",\"deployments\":2,\"replicas\":3,\"took_ms\":400}\n"
     "{\"event\":\"deleted\",\"elapsed_ms\":600,\"application\":\"rag\"}\n"},
};

START_TEST(plays_out)
{
    rs_auto(rs_freep) char *got = play(&plays[_i].conf, plays[_i].list);

    ck_assert_str_eq(got, plays[_i].want);
}
END_TEST

START_TEST(failures_as_json)
{
    rs_auto(rs_freep) char *got =
        play(&(struct rs_progress_conf){.json = true, .quiet = true}, (int[]){BROKEN, IMPORT, -1});
    char *newline = strchr(got, '\n');
    json_t *one, *two;

    ck_assert_ptr_nonnull(newline);
    *newline = '\0';
    one = json_loads(got, 0, NULL);
    two = json_loads(newline + 1, 0, NULL);
    ck_assert_str_eq(json_string_value(json_object_get(one, "event")), "failed");
    ck_assert_str_eq(json_string_value(json_object_get(one, "deployment")), "Generator");
    ck_assert_str_eq(json_string_value(json_object_get(one, "message")), failure);
    ck_assert(json_is_null(json_object_get(two, "deployment")));
    json_decref(one);
    json_decref(two);
}
END_TEST

/* No line of a block is as wide as the terminal, whatever names and messages hold. */
START_TEST(block_fits)
{
    struct rs_progress_deployment d = {
        .name = "\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97 with a name that goes on and on "
                "and on",
        .status = "UPDATING",
        .message = "tabs\tand\x1b[31m colours and \xff bytes and so many words that no terminal is "
                   "wide enough for them to stand in one line of it, not even a very wide one",
        .target = 3};
    struct rs_progress_app app = {
        "app-" /* of many letters */ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "/a/very/long/prefix",
        "DEPLOYING",
        "",
        &d,
        1};
    struct rs_progress_conf conf = {.tty = true, .height = 24, .width = 40 + (size_t)_i * 20};
    rs_auto(rs_progress_freep) struct rs_progress *p = rs_progress_new(&conf, 0);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_progress_feed(p, &(struct rs_progress_snapshot){&app, 1}, RS_SEC, &out);
    for (const char *at = rs_buf_text(&out); *at;) {
        size_t n = strcspn(at, "\n");

        ck_assert_uint_lt(rs_text_width(at, n), conf.width);
        ck_assert_ptr_null(memchr(at, '\x1b', n));
        at += n + 1;
    }
}
END_TEST

START_TEST(notes_go_above_the_block)
{
    rs_auto(rs_progress_freep) struct rs_progress *p =
        rs_progress_new(&(struct rs_progress_conf){.tty = true, .height = 24, .width = 80, URL}, 0);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_progress_note(p, "config read", false, &out);
    rs_progress_feed(p, &(struct rs_progress_snapshot){&steps[BEGINS], 1}, 100 * RS_MS, &out);
    rs_progress_note(p, "a log line\nand one more\n", false, &out);
    rs_progress_end(p, &out);
    rs_progress_note(p, "", true, &out);
    rs_progress_note(p, "after", false, &out);
    ck_assert_str_eq(rs_buf_text(&out), "config read\n"
                                        "rag  DEPLOYING  0.1 s\n"
                                        "\r\x1b[1A\x1b[J"
                                        "a log line\nand one more\n"
                                        "rag  DEPLOYING  0.1 s\n"
                                        "\r\x1b[1A\x1b[J"
                                        "after\n");
}
END_TEST

START_TEST(quiet_notes)
{
    rs_auto(rs_progress_freep) struct rs_progress *p =
        rs_progress_new(&(struct rs_progress_conf){.quiet = true}, 0);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_progress_note(p, "not this", false, &out);
    rs_progress_note(p, "this", true, &out);
    ck_assert_str_eq(rs_buf_text(&out), "this\n");
}
END_TEST

START_TEST(counts)
{
    const struct rs_progress_app apps[] = {
        steps[DEPLOYING], {"b", "/b", "DEPLOY_FAILED", "x"}, {"c", "/c", "RUNNING", ""}};
    rs_auto(rs_progress_freep) struct rs_progress *p =
        rs_progress_new(&(struct rs_progress_conf){.quiet = true}, 0);
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_progress_feed(p, &(struct rs_progress_snapshot){apps, 3}, 1, &out);
    ck_assert_uint_eq(rs_progress_busy(p), 1);
    ck_assert_uint_eq(rs_progress_failed(p), 1);
    rs_progress_feed(p, &(struct rs_progress_snapshot){apps + 2, 1}, 1, &out);
    ck_assert_uint_eq(rs_progress_busy(p), 0);
    ck_assert_uint_eq(rs_progress_failed(p), 0);
}
END_TEST

static const struct {
    const char *message, *traceback, *line;
} messages[] = {
    {"", "", ""},
    {"just words", "", "just words"},
    {"two\nlines", "", "two"},
    {failure, own_lines,
     "The deployment failed to start 3 times in a row due to a problem with its constructor: "
     "RuntimeError: no"},
    {"Traceback (most recent call last):\n"
     "  File \"<frozen importlib._bootstrap>\", line 1, in _find\n"
     "  File \"/usr/lib/python3.11/importlib/__init__.py\", line 126, in import_module\n"
     "    return _bootstrap._gcd_import(name[level:], package, level)\n"
     "  File \"/w/app.py\", line 3\n"
     "    def f(:\n"
     "          ^\n"
     "SyntaxError: invalid syntax\n\n\n",
     "Traceback (most recent call last):\n"
     "  File \"/w/app.py\", line 3\n"
     "    def f(:\n"
     "          ^\n"
     "SyntaxError: invalid syntax\n",
     "SyntaxError: invalid syntax"},
    {"Deploying app 'x' failed with exception:\n  File \"/w/syn.py\", line 1\n    def f(:\n        "
     " ^\n"
     "SyntaxError: invalid syntax",
     "  File \"/w/syn.py\", line 1\n    def f(:\n         ^\nSyntaxError: invalid syntax\n",
     "Deploying app 'x' failed with exception: SyntaxError: invalid syntax"},
    {"A replica failed. Error:\nit exited with status 1", "",
     "A replica failed. Error: it exited with status 1"},
    {"nothing follows:\n", "", "nothing follows"},
    {"It broke.\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    x\n"
     "KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n"
     "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\n    y\n"
     "app.Odd: several\n  lines",
     "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    x\n"
     "KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n"
     "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\n    y\n"
     "app.Odd: several\n  lines\n",
     "It broke: app.Odd: several"},
};

START_TEST(tracebacks)
{
    rs_auto(rs_buf_fini) struct rs_buf traceback = {0}, line = {0};

    rs_progress_traceback(&traceback, messages[_i].message);
    rs_progress_oneline(&line, messages[_i].message);
    ck_assert_str_eq(rs_buf_text(&traceback), messages[_i].traceback);
    ck_assert_str_eq(rs_buf_text(&line), messages[_i].line);
}
END_TEST

RS_CHECK_MAIN("progress", tcase_add_loop_test(tc, plays_out, 0, RS_COUNT(plays));
              tcase_add_test(tc, failures_as_json); tcase_add_loop_test(tc, block_fits, 0, 4);
              tcase_add_test(tc, notes_go_above_the_block); tcase_add_test(tc, quiet_notes);
              tcase_add_test(tc, counts);
              tcase_add_loop_test(tc, tracebacks, 0, RS_COUNT(messages));)
