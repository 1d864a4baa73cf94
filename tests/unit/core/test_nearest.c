#include "core/base/nearest.h"
#include "tests/unit/check_main.h"

#include "core/base/error.h"

#include <string.h>

static const struct {
    const char *a, *b;
    size_t want;
} distances[] = {
    {"", "", 0},
    {"abc", "", 3},
    {"", "abc", 3},
    {"run", "run", 0},
    {"run", "rum", 1},
    {"status", "statsu", 1},
    {"kitten", "sitting", 3},
    {"PORT", "port", 0},
    {"num-cpus", "num_cpus", 0},
    {"ab", "ba", 1},
    {"abcd", "badc", 2},
};

START_TEST(distance)
{
    ck_assert_uint_eq(rs_edit_distance(distances[_i].a, distances[_i].b), distances[_i].want);
    ck_assert_uint_eq(rs_edit_distance(distances[_i].b, distances[_i].a), distances[_i].want);
}
END_TEST

static const char *const candidates[] = {
    "head", "worker", "run", "status", "help", "num_replicas", "num_cpus", "max_queued_requests",
};

static const struct {
    const char *word, *want;
} words[] = {
    {"rnu", "run"},
    {"statsu", "status"},
    {"stat", "status"},
    {"Num-Replica", "num_replicas"},
    {"max_queue_requests", "max_queued_requests"},
    {"haed", "head"},
    {"hepl", "help"},
    {"zzzzzz", NULL},
    {"", NULL},
    {"x", NULL},
    {"deploy", NULL},
    {"a_word_that_is_longer_than_sixty_three_characters_is_near_to_nothing", NULL},
};

START_TEST(best)
{
    struct rs_nearest near = rs_nearest_to(words[_i].word);

    for (size_t i = 0; i < RS_COUNT(candidates); i++)
        rs_nearest_offer(&near, candidates[i]);
    if (words[_i].want)
        ck_assert_pstr_eq(near.best, words[_i].want);
    else
        ck_assert_ptr_null(near.best);
}
END_TEST

START_TEST(first_of_equals_stays)
{
    struct rs_nearest near = rs_nearest_to("port");

    rs_nearest_offer(&near, "porta");
    rs_nearest_offer(&near, "portb");
    ck_assert_str_eq(near.best, "porta");
    ck_assert_uint_eq(near.distance, 1);
    rs_nearest_offer(&near, "port");
    ck_assert_str_eq(near.best, "port");
}
END_TEST

RS_CHECK_MAIN("nearest", tcase_add_loop_test(tc, distance, 0, RS_COUNT(distances));
              tcase_add_loop_test(tc, best, 0, RS_COUNT(words));
              tcase_add_test(tc, first_of_equals_stays);)
