#include "cmd/node-logs.h"

#include "core/base/alloc.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* What was answered, the last of it first. */
struct heard {
    unsigned n;
    uint64_t stream;
    json_t *msg;
};

struct world {
    struct rs_loop *loop;
    struct rs_journal *journal;
    struct rs_node_logs *logs;
    struct rs_journal_source *source;
    struct heard heard;
};

static void on_answer(uint64_t stream, const json_t *msg, void *arg)
{
    struct heard *h = arg;

    h->n++;
    h->stream = stream;
    json_decref(h->msg);
    h->msg = json_deep_copy(msg);
}

static void begin(struct world *w)
{
    struct rs_error err = {0};

    *w = (struct world){0};
    ck_assert_int_eq(rs_loop_new(&w->loop, &err), 0);
    w->journal = rs_journal_new(0);
    w->source = rs_journal_open(w->journal, "app#D#r");
    w->logs = rs_node_logs_new(w->loop, w->journal, "here", on_answer, &w->heard);
}

static void end(struct world *w)
{
    rs_node_logs_free(w->logs);
    rs_journal_free(w->journal);
    rs_loop_free(w->loop);
    json_decref(w->heard.msg);
}

static void say(struct world *w, const char *text, size_t len)
{
    rs_journal_add(w->source, 1, 12.5, text, len);
}

static void ask(struct world *w, uint64_t stream, const char *msg)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(msg, 0, NULL);

    ck_assert_ptr_nonnull(j);
    rs_node_logs_asked(w->logs, stream, j);
}

static const char *line(const struct world *w, size_t n)
{
    return json_string_value(
        json_array_get(json_array_get(json_object_get(w->heard.msg, "lines"), n), 3));
}

START_TEST(at_once)
{
    struct world w;
    rs_auto(rs_freep) char *text = NULL;

    begin(&w);
    ask(&w, 2, "{\"app\": \"app\"}");
    ck_assert_uint_eq(w.heard.n, 1);
    ck_assert_uint_gt(rs_json_int(w.heard.msg, "next", 0), 0);
    say(&w, "one", 3);
    say(&w, "two", 3);
    ask(&w, 4, "{\"app\": \"app\", \"last\": 1}");
    ck_assert_uint_eq(w.heard.stream, 4);
    text = rs_json_dump(w.heard.msg);
    ck_assert_str_eq(text, "{\"node\":\"here\",\"next\":3,\"more\":false,\"lost\":false,"
                           "\"lines\":[[12.5,\"app#D#r\",1,\"two\"]]}");
    ask(&w, 6, "{\"app\": \"app\", \"since_s\": 3600}"); /* it was said long ago */
    ck_assert_ptr_null(line(&w, 0));
    end(&w);
}
END_TEST

/* A question that waits is answered when there is something that it asked for, once. */
START_TEST(later)
{
    struct world w;
    struct rs_journal_source *other;

    begin(&w);
    say(&w, "one", 3);
    ask(&w, 8, "{\"app\": \"app\", \"deployment\": \"D\", \"after\": 2, \"wait_s\": 30}");
    ck_assert_uint_eq(w.heard.n, 0);
    other = rs_journal_open(w.journal, "app#E#r");
    rs_journal_add(other, 1, 1, "of another", 10);
    ck_assert_int_eq(rs_loop_turn(w.loop, -1), 0); /* until it has looked */
    ck_assert_uint_eq(w.heard.n, 0);
    say(&w, "two", 3);
    say(&w, "three", 5);
    while (w.heard.n == 0)
        ck_assert_int_eq(rs_loop_turn(w.loop, -1), 0);
    ck_assert_uint_eq(w.heard.stream, 8);
    ck_assert_str_eq(line(&w, 0), "two");
    ck_assert_str_eq(line(&w, 1), "three"); /* together */
    say(&w, "four", 4);
    ck_assert_uint_eq(w.heard.n, 1);
    end(&w);
}
END_TEST

START_TEST(nobody_waits_any_more)
{
    struct world w;

    begin(&w);
    ask(&w, 2, "{\"app\": \"app\", \"after\": 1, \"wait_s\": 30}");
    ask(&w, 4, "{\"app\": \"app\", \"after\": 1, \"wait_s\": 30}");
    ask(&w, 2, "{\"cancel\": true}");
    say(&w, "one", 3);
    while (w.heard.n == 0)
        ck_assert_int_eq(rs_loop_turn(w.loop, -1), 0);
    ck_assert_uint_eq(w.heard.n, 1);
    ck_assert_uint_eq(w.heard.stream, 4);
    ask(&w, 6, "{\"app\": \"app\", \"after\": 2, \"wait_s\": 30}");
    rs_node_logs_head_gone(w.logs);
    say(&w, "two", 3);
    ck_assert_uint_eq(w.heard.n, 1);
    end(&w);
}
END_TEST

/* Too many that wait: the oldest is told that there is nothing. */
START_TEST(bounded)
{
    struct world w;

    begin(&w);
    for (uint64_t i = 1; i <= RS_NODE_LOGS_WAITING + 3; i++)
        ask(&w, i, "{\"after\": 1, \"wait_s\": 30}");
    ck_assert_uint_eq(w.heard.n, 3);
    ck_assert_uint_eq(w.heard.stream, 3);
    end(&w);
}
END_TEST

static const struct {
    const char *said;
    size_t len;
    const char *told;
} texts[] = {
    {"plain", 5, "plain"},
    {"\x1b[31mred\x1b[0m\tx", 14, "\x1b[31mred\x1b[0m\tx"},
    {"caf\xc3\xa9", 5, "caf\xc3\xa9"},
    {"a\xff"
     "b",
     3,
     "a\xef\xbf\xbd"
     "b"},
    {"a\0b", 3,
     "a\xef\xbf\xbd"
     "b"},
    {"\xc3", 1, "\xef\xbf\xbd"},
    {"\xed\xa0\x80", 3, NULL}, /* half of a surrogate: anything that is UTF-8 */
    {"", 0, ""},
};

START_TEST(text_of_any_kind)
{
    struct world w;
    rs_auto(rs_freep) char *dump = NULL;
    json_t *again;

    begin(&w);
    say(&w, texts[_i].said, texts[_i].len);
    ask(&w, 2, "{}");
    ck_assert_ptr_nonnull(line(&w, 0));
    if (texts[_i].told)
        ck_assert_str_eq(line(&w, 0), texts[_i].told);
    dump = rs_json_dump(w.heard.msg);
    again = json_loads(dump, 0, NULL);
    ck_assert_ptr_nonnull(again);
    json_decref(again);
    end(&w);
}
END_TEST

/* What a head could send that is none of its business. */
START_TEST(odd_questions)
{
    static const char *const odd[] = {
        "{\"after\": -5}",
        "{\"last\": -1, \"max_bytes\": -1, \"since_s\": -1}",
        "{\"app\": 7, \"previous\": \"x\", \"wait_s\": 1e99}",
        "{\"after\": 9223372036854775807, \"wait_s\": 0}",
        "{\"since_s\": 1e308}",
        "{\"cancel\": 1}",
    };
    struct world w;

    begin(&w);
    say(&w, "one", 3);
    ask(&w, 2, odd[_i]);
    ck_assert_uint_eq(w.heard.n, 1);
    end(&w);
}
END_TEST

RS_CHECK_MAIN("node_logs", tcase_add_test(tc, at_once); tcase_add_test(tc, later);
              tcase_add_test(tc, nobody_waits_any_more); tcase_add_test(tc, bounded);
              tcase_add_loop_test(tc, text_of_any_kind, 0, RS_COUNT(texts));
              tcase_add_loop_test(tc, odd_questions, 0, 6);)
