/* scalar.h: elementary functions of one double, with the same bits everywhere.
 *
 * glibc's own log, exp, cos and pow differ in their last bit between machines with and without FMA, so nothing
 * that reaches a parameter (initializers, schedules, bias corrections) may use them. These use only + - * / sqrt
 * and fma, which IEEE 754 defines exactly. Relative error below 4e-15 over the stated domain.
 *
 * Threads: pure functions.
 */
#ifndef BP_BASE_SCALAR_H
#define BP_BASE_SCALAR_H

#include <stdint.h>

double bp_exp(double x);                  /* e^x; 0 below -745, +inf above 709.8 */
double bp_ln(double x);                   /* natural logarithm, x > 0 (0 gives -inf, negative NaN) */
double bp_cospi(double x);                /* cos(pi x), |x| < 2^51 */
double bp_powi(double base, uint64_t n);  /* base^n by repeated squaring; 0^0 is 1 */
double bp_pow(double base, double power); /* base^power, base > 0: exp(power log base) */

#endif
