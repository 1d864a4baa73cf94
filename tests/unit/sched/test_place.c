/* Where replicas go, which go first, and why none fits. */
#include "sched/place.h"

#include "core/resource/resources.h"
#include "tests/unit/check_main.h"

#include <string.h>

#define MAX 5

struct setup {
    const char *total, *free;
    unsigned replicas, all;
    bool unusable, head;
};

static struct rs_resources totals[MAX], frees[MAX], each;
static struct rs_place_node nodes[MAX];
static const char *const names[MAX] = {"a", "b", "c", "d", "e"};

static void read_amounts(struct rs_resources *r, const char *text)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(text, 0, NULL);

    rs_resources_fini(r);
    ck_assert_int_eq(rs_resources_from_json(r, j, NULL), 0);
}

static size_t build(const struct setup *s, const char *want)
{
    size_t n = 0;

    read_amounts(&each, want);
    for (; n < MAX && s[n].total; n++) {
        read_amounts(&totals[n], s[n].total);
        read_amounts(&frees[n], s[n].free ? s[n].free : s[n].total);
        nodes[n] = (struct rs_place_node){.id = names[n],
                                          .name = names[n],
                                          .total = &totals[n],
                                          .free = &frees[n],
                                          .replicas = s[n].replicas,
                                          .replicas_all = s[n].all,
                                          .usable = !s[n].unusable,
                                          .head = s[n].head};
    }
    return n;
}

static void teardown(void)
{
    for (size_t i = 0; i < MAX; i++) {
        rs_resources_fini(&totals[i]);
        rs_resources_fini(&frees[i]);
    }
    rs_resources_fini(&each);
}

#define NONE (-1)
static const struct {
    struct setup nodes[MAX];
    const char *want;
    unsigned max_per_node;
    int pick;
} picks[] = {
    {{{0}}, "{\"CPU\": 1}", 0, NONE},
    {{{"{\"CPU\": 4}"}}, "{\"CPU\": 1}", 0, 0},
    {{{"{\"CPU\": 4}", "{}"}}, "{\"CPU\": 1}", 0, NONE},
    {{{"{\"CPU\": 4}", "{}"}}, "{}", 0, 0}, /* wants nothing: fits anywhere */
    /* fewest of its own first, then most room, then the first */
    {{{"{\"CPU\": 8}", NULL, 1}, {"{\"CPU\": 2}", NULL, 0}}, "{\"CPU\": 1}", 0, 1},
    {{{"{\"CPU\": 2}"}, {"{\"CPU\": 8}"}}, "{\"CPU\": 1}", 0, 1},
    {{{"{\"CPU\": 8}"}, {"{\"CPU\": 8}"}}, "{\"CPU\": 1}", 0, 0},
    /* room is what runs out first */
    {{{"{\"CPU\": 64, \"GPU\": 1}"}, {"{\"CPU\": 8, \"GPU\": 4}"}},
     "{\"CPU\": 1, \"GPU\": 1}",
     0,
     1},
    {{{"{\"CPU\": 8}", NULL, 0, 0, true}, {"{\"CPU\": 1}"}}, "{\"CPU\": 1}", 0, 1},
    {{{"{\"CPU\": 8}", NULL, 2}, {"{\"CPU\": 8}", NULL, 3}}, "{\"CPU\": 1}", 2, NONE},
    {{{"{\"CPU\": 8}", NULL, 1}, {"{\"CPU\": 8}", NULL, 3}}, "{\"CPU\": 1}", 2, 0},
    {{{"{\"CPU\": 1, \"disk\": 1}"}, {"{\"CPU\": 8}"}}, "{\"CPU\": 1, \"disk\": 1}", 0, 0},
};

START_TEST(pick)
{
    size_t n = build(picks[_i].nodes, picks[_i].want);
    struct rs_place_want want = {.each = &each, .max_per_node = picks[_i].max_per_node};
    size_t at = rs_place_pick(nodes, n, &want);

    ck_assert_int_eq(at == RS_PLACE_NONE ? NONE : (int)at, picks[_i].pick);
}
END_TEST

static const struct {
    struct setup nodes[MAX];
    const char *want;
    unsigned max_per_node;
    const char *why;
} whys[] = {
    {{{0}}, "{\"GPU\": 1}", 0, "needs 1 GPU; there is no node yet"},
    {{{"{\"CPU\": 2}"}}, "{\"GPU\": 1}", 0, "needs 1 GPU; node has 0"},
    {{{"{\"CPU\": 2, \"GPU\": 1}", "{\"CPU\": 0.5, \"GPU\": 0.3}"}},
     "{\"CPU\": 1, \"GPU\": 0.5}",
     0,
     "needs 1 CPU; node has 2, 0.5 free and needs 0.5 GPU; node has 1, 0.3 free"},
    {{{"{\"CPU\": 2}"}, {"{\"CPU\": 4}", NULL, 0, 0, true}},
     "{\"CPU\": 3}",
     0,
     "a: needs 3 CPU; node has 2; b: the node takes no new replicas"},
    {{{"{\"CPU\": 2}", NULL, 2}}, "{\"CPU\": 1}", 2, "runs 2 of at most 2 replicas per node"},
    {{{"{}"}, {"{}"}, {"{}"}, {"{}"}, {"{}"}},
     "{\"disk\": 1}",
     0,
     "a: needs 1 disk; node has 0; b: needs 1 disk; node has 0; c: needs 1 disk; node has 0; and 2 "
     "more nodes"},
};

START_TEST(why)
{
    size_t n = build(whys[_i].nodes, whys[_i].want);
    struct rs_place_want want = {.each = &each, .max_per_node = whys[_i].max_per_node};
    struct rs_buf text = {0};

    ck_assert(rs_place_pick(nodes, n, &want) == RS_PLACE_NONE);
    rs_place_why(nodes, n, &want, &text);
    ck_assert_str_eq(rs_buf_text(&text), whys[_i].why);
    rs_buf_fini(&text);
}
END_TEST

static const struct {
    struct setup nodes[MAX];
    int drop;
} drops[] = {
    {{{"{}", NULL, 0}}, NONE},
    {{{"{}", NULL, 0}, {"{}", NULL, 1, 9}}, 1},
    {{{"{}", NULL, 1, 5}, {"{}", NULL, 1, 2}, {"{}", NULL, 1, 4}}, 1},
    {{{"{}", NULL, 1, 1, false, true}, {"{}", NULL, 1, 7}}, 1}, /* the head's own last */
    {{{"{}", NULL, 1, 1}, {"{}", NULL, 1, 7, true}}, 1},        /* leaving ones first */
    {{{"{}", NULL, 1, 1, true, true}, {"{}", NULL, 1, 7, false}}, 0},
};

START_TEST(drop)
{
    size_t n = build(drops[_i].nodes, "{}");
    size_t at = rs_place_drop(nodes, n);

    ck_assert_int_eq(at == RS_PLACE_NONE ? NONE : (int)at, drops[_i].drop);
}
END_TEST

RS_CHECK_MAIN("place", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_loop_test(tc, pick, 0, RS_COUNT(picks));
              tcase_add_loop_test(tc, why, 0, RS_COUNT(whys));
              tcase_add_loop_test(tc, drop, 0, RS_COUNT(drops));)
