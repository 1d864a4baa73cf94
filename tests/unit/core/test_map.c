#include "core/base/map.h"

#include "core/base/error.h"

#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

START_TEST(put_get_remove)
{
    struct rs_map m = {0};
    int values[2000];
    char key[16];

    ck_assert_ptr_null(rs_map_get(&m, "absent"));
    ck_assert_ptr_null(rs_map_remove(&m, "absent"));
    for (size_t i = 0; i < RS_COUNT(values); i++) {
        snprintf(key, sizeof(key), "key%zu", i);
        ck_assert_ptr_null(rs_map_put(&m, key, &values[i]));
    }
    for (size_t i = 0; i < RS_COUNT(values); i += 2) {
        snprintf(key, sizeof(key), "key%zu", i);
        ck_assert_ptr_eq(rs_map_remove(&m, key), &values[i]);
    }
    ck_assert_uint_eq(rs_map_count(&m), RS_COUNT(values) / 2);
    for (size_t i = 0; i < RS_COUNT(values); i++) {
        snprintf(key, sizeof(key), "key%zu", i);
        ck_assert_ptr_eq(rs_map_get(&m, key), i % 2 ? &values[i] : NULL);
    }
    rs_map_fini(&m);
}
END_TEST

START_TEST(put_replaces)
{
    struct rs_map m = {0};
    int a, b;

    ck_assert_ptr_null(rs_map_put(&m, "k", &a));
    ck_assert_ptr_eq(rs_map_put(&m, "k", &b), &a);
    ck_assert_ptr_eq(rs_map_get(&m, "k"), &b);
    ck_assert_uint_eq(rs_map_count(&m), 1);
    rs_map_fini(&m);
}
END_TEST

START_TEST(walks_in_order_of_insertion)
{
    static const char *const keys[] = {"zebra", "ant", "mole", "bee"};
    struct rs_map m = {0};
    int values[RS_COUNT(keys)];
    char seen[64] = "";

    for (size_t i = 0; i < RS_COUNT(keys); i++)
        rs_map_put(&m, keys[i], &values[i]);
    rs_map_remove(&m, "ant");
    for (size_t i = 0; i < rs_map_slots(&m); i++) {
        const char *key;

        if (rs_map_at(&m, i, &key)) {
            strcat(seen, key);
            strcat(seen, " ");
        }
    }
    ck_assert_str_eq(seen, "zebra mole bee ");
    rs_map_fini(&m);
}
END_TEST

/* Many removals and insertions with few live entries: holes are reused, the index stays small. */
START_TEST(churn_stays_small)
{
    struct rs_map m = {0};
    char key[16];
    int value;

    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        rs_map_put(&m, key, &value);
        if (i >= 10) {
            snprintf(key, sizeof(key), "k%d", i - 10);
            ck_assert_ptr_eq(rs_map_remove(&m, key), &value);
        }
    }
    ck_assert_uint_eq(rs_map_count(&m), 10);
    ck_assert_uint_le(m.index_size, 256);
    rs_map_fini(&m);
}
END_TEST

RS_CHECK_MAIN("map", tcase_add_test(tc, put_get_remove); tcase_add_test(tc, put_replaces);
              tcase_add_test(tc, walks_in_order_of_insertion);
              tcase_add_test(tc, churn_stays_small);)
