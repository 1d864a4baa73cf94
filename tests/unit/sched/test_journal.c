#include "sched/supervise/journal.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static void say(struct rs_journal_source *s, double at, const char *text)
{
    rs_journal_add(s, 1, at, text, strlen(text));
}

static void collect(const struct rs_journal_line *line, void *arg)
{
    rs_buf_printf(arg, "%s%.*s", rs_buf_len(arg) ? " " : "", (int)line->len, line->text);
}

static struct rs_journal_page read_all(const struct rs_journal *j, const struct rs_journal_query *q,
                                       const char *want)
{
    rs_auto(rs_buf_fini) struct rs_buf got = {0};
    struct rs_journal_page page;

    rs_journal_read(j, q, collect, &got, &page);
    ck_assert_str_eq(rs_buf_text(&got), want);
    ck_assert(page.next > 0);
    return page;
}

#define ALL .last = SIZE_MAX, .max_bytes = SIZE_MAX
static const struct {
    struct rs_journal_query query;
    const char *want;
} queries[] = {
    {{ALL}, "import b1 x1 a1 c1 b2"},
    {{.app = "one", ALL}, "import b1 a1 c1 b2"},
    {{.app = "two", ALL}, "x1"},
    {{.app = "on", ALL}, ""},
    {{.app = "one", .deployment = "B", ALL}, "b1 b2"},
    {{.app = "one", .deployment = "A", .replica = "r1", ALL}, "a1"},
    {{.app = "one", .deployment = "A", .replica = "r", ALL}, ""},
    {{.app = "one", .deployment = "", ALL}, ""},
    {{.deployment = "B", ALL}, "b1 x1 b2"},
    {{.app = "one", .previous = true, ALL}, "import a1"},
    {{.since = 40, ALL}, "a1 c1 b2"},
    {{.last = 2, .max_bytes = SIZE_MAX}, "c1 b2"},
    {{.app = "one", .last = 4, .max_bytes = SIZE_MAX}, "b1 a1 c1 b2"},
    {{.last = 0, .max_bytes = SIZE_MAX}, ""},
    {{.last = SIZE_MAX, .max_bytes = 1}, "b2"}, /* one, however long it is */
    {{.after = 1, .max_bytes = SIZE_MAX}, "import b1 x1 a1 c1 b2"},
    {{.after = 4, .max_bytes = SIZE_MAX}, "a1 c1 b2"},
    {{.after = 4, .app = "one", .deployment = "B", .max_bytes = SIZE_MAX}, "b2"},
    {{.after = 7, .max_bytes = SIZE_MAX}, ""},
    {{.after = UINT64_MAX, .max_bytes = SIZE_MAX}, ""},
    {{.after = 1, .max_bytes = 1}, "import"},
};

START_TEST(what_is_asked_for)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(0);
    struct rs_journal_source *zygote = rs_journal_open(j, "one");
    struct rs_journal_source *a = rs_journal_open(j, "one#A#r1");
    struct rs_journal_source *b = rs_journal_open(j, "one#B#r2");
    struct rs_journal_source *c = rs_journal_open(j, "one#C#r3");
    struct rs_journal_source *x = rs_journal_open(j, "two#B#r2");

    say(zygote, 10, "import");
    say(b, 20, "b1");
    say(x, 30, "x1");
    say(a, 40, "a1");
    say(c, 50, "c1");
    say(b, 60, "b2");
    rs_journal_close(a);
    rs_journal_close(zygote);
    read_all(j, &queries[_i].query, queries[_i].want);
}
END_TEST

/* Page by page, with lines that come meanwhile, everything comes once. */
START_TEST(pages)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(0);
    struct rs_journal_source *s = rs_journal_open(j, "one#A#r1");
    struct rs_journal_query q = {.after = 1, .max_bytes = 1};
    struct rs_journal_page page;

    say(s, 1, "a");
    say(s, 2, "b");
    page = read_all(j, &q, "a");
    ck_assert(page.more);
    q.after = page.next;
    say(s, 3, "c");
    page = read_all(j, &q, "b");
    ck_assert(page.more);
    q.after = page.next;
    page = read_all(j, &q, "c");
    ck_assert(!page.more && !page.lost);
    q.after = page.next;
    page = read_all(j, &q, "");
    ck_assert_uint_eq(page.next, q.after);
    say(s, 4, "d");
    read_all(j, &q, "d");
}
END_TEST

/* One that prints without end leaves the others theirs, and does not grow. */
START_TEST(a_flood)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(20000);
    struct rs_journal_source *quiet = rs_journal_open(j, "one#A#quiet");
    struct rs_journal_source *loud = rs_journal_open(j, "one#A#loud");
    struct rs_journal_query q = {.app = "one", .deployment = "A", .replica = "quiet", ALL};
    struct rs_journal_page page;
    rs_auto(rs_buf_fini) struct rs_buf got = {0};

    say(quiet, 1, "hear me");
    for (int i = 0; i < 5000; i++)
        say(loud, 2, "................................................");
    read_all(j, &q, "hear me");
    q.replica = "loud";
    rs_journal_read(j, &q, collect, &got, &page);
    ck_assert_uint_lt(rs_buf_len(&got), 20000);
    ck_assert_uint_gt(rs_buf_len(&got), 1000);
    q.after = 2;
    rs_journal_read(j, &q, collect, &got, &page);
    ck_assert(page.lost);
    q.replica = "quiet";
    page = read_all(j, &q, "");
    ck_assert(!page.lost);
}
END_TEST

/* Of a process that is gone nothing stays once its lines had to go, and a line longer than all of the
 * room is kept alone. */
START_TEST(ended_processes_go)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(5000);
    struct rs_journal_query q = {ALL};
    rs_auto(rs_freep) char *big = rs_alloc(9000);
    char label[40], text[20];

    for (int i = 0; i < 1000; i++) {
        snprintf(label, sizeof(label), "one#A#r%d", i);
        snprintf(text, sizeof(text), "%d", i);
        struct rs_journal_source *s = rs_journal_open(j, label);

        say(s, i, text);
        rs_journal_close(s);
    }
    q.replica = "r999";
    read_all(j, &q, "999");
    q.replica = "r0";
    read_all(j, &q, "");
    memset(big, 'x', 8999);
    struct rs_journal_source *s = rs_journal_open(j, "one#A#big");

    say(s, 2000, big);
    q.replica = NULL;
    read_all(j, &q, big);
    rs_journal_close(s);
    rs_journal_close(NULL);
}
END_TEST

static void count(void *arg)
{
    ++*(int *)arg;
}

START_TEST(news_once)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(0);
    struct rs_journal_source *s = rs_journal_open(j, "one");
    int told = 0;

    say(s, 1, "a");
    rs_journal_watch(j, count, &told);
    ck_assert_int_eq(told, 0);
    say(s, 2, "b");
    say(s, 3, "c");
    ck_assert_int_eq(told, 1);
    rs_journal_watch(j, count, &told);
    say(s, 4, "d");
    ck_assert_int_eq(told, 2);
}
END_TEST

/* Whatever is printed by whomever, a reader with a cursor sees each line that is kept once, in order. */
START_TEST(random_readers)
{
    rs_auto(rs_journal_freep) struct rs_journal *j = rs_journal_new(4000);
    struct rs_journal_source *sources[5] = {0};
    struct rs_journal_query q = {.after = 1, .max_bytes = 300};
    unsigned seed = (unsigned)_i * 7919 + 1;
    long said = 0, seen = 0;

    for (int step = 0; step < 3000; step++) {
        unsigned pick = (unsigned)rand_r(&seed);
        struct rs_journal_source **s = &sources[pick % 5];
        char text[20];

        if (pick % 11 == 0 && *s) {
            rs_journal_close(*s);
            *s = NULL;
        } else if (pick % 3 != 0) {
            if (!*s)
                *s = rs_journal_open(j, "one#A#r");
            snprintf(text, sizeof(text), "%ld", ++said);
            say(*s, step, text);
        } else {
            rs_auto(rs_buf_fini) struct rs_buf got = {0};
            struct rs_journal_page page;
            char *at, *end;

            rs_journal_read(j, &q, collect, &got, &page);
            for (at = (char *)(uintptr_t)rs_buf_text(&got); *at; at = end) {
                long n = strtol(at, &end, 10);

                ck_assert_msg(n > seen, "%ld after %ld", n, seen);
                seen = n;
            }
            ck_assert_uint_ge(page.next, q.after);
            q.after = page.next;
        }
    }
    ck_assert_int_gt(seen, 0);
    for (int i = 0; i < 5; i++)
        rs_journal_close(sources[i]);
}
END_TEST

RS_CHECK_MAIN("journal", tcase_add_loop_test(tc, what_is_asked_for, 0, RS_COUNT(queries));
              tcase_add_test(tc, pages); tcase_add_test(tc, a_flood);
              tcase_add_test(tc, ended_processes_go); tcase_add_test(tc, news_once);
              tcase_add_loop_test(tc, random_readers, 0, 20);)
