/* The main function of a unit test: one suite, one case, the tests that are named.
 *
 *     RS_CHECK_MAIN("options", tcase_add_test(tc, parses); tcase_add_loop_test(tc, refuses, 0, 9);)
 *
 * Each test runs in a process of its own, unless CK_FORK=no says otherwise.
 */
#pragma once

#include <check.h>
#include <stdlib.h>

#define RS_CHECK_MAIN(name, ...)                                                                   \
    int main(void)                                                                                 \
    {                                                                                              \
        Suite *suite = suite_create(name);                                                         \
        TCase *tc = tcase_create(name);                                                            \
        SRunner *runner = srunner_create(suite);                                                   \
        int failed;                                                                                \
                                                                                                   \
        suite_add_tcase(suite, tc);                                                                \
        tcase_set_timeout(tc, 30);                                                                 \
        __VA_ARGS__                                                                                \
        srunner_run_all(runner, CK_ENV);                                                           \
        failed = srunner_ntests_failed(runner);                                                    \
        srunner_free(runner);                                                                      \
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                                          \
    }
