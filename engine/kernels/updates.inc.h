/* updates.inc.h: the updates of the optimizers beside sgd and adam, over flat ranges, written once on v16; included by
 * flat.inc.h, whose flush they use.
 *
 * The formulas are in kernels.h (bp_update_kernel). As in adam, moments below the smallest normal number become 0.
 */

/* The gradient as the rules see it: scaled, and with the coupled decay. */
V16_INLINE v16 update_gradient(const struct bp_update *u, v16 p, v16 g)
{
    return v16_fma(v16_set(u->decay), p, v16_mul(v16_set(u->grad_scale), g));
}

/* keep m + (1 - keep) x */
V16_INLINE v16 update_average(bp_real keep, v16 m, v16 x)
{
    return flush(v16_fma(v16_set(keep), m, v16_mul(v16_set(1 - keep), x)));
}

/* keep v + (1 - keep) g^2, in the order of adam's kernel */
V16_INLINE v16 update_square(bp_real keep, v16 v, v16 g)
{
    return flush(v16_fma(v16_set(keep), v, v16_mul(v16_mul(v16_set(1 - keep), g), g)));
}

/* 1, -1 or 0 (also for NaN) */
V16_INLINE v16 update_sign(v16 x)
{
    v16 zero = v16_zero(), negative = v16_select(v16_less(x, zero), v16_set(-1), zero);
    return v16_select(v16_less(zero, x), v16_set(1), negative);
}

static void kernel_amsgrad(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 shrink = v16_set(u->shrink), eps = v16_set(u->eps), root_scale = v16_set(u->root_scale);
    v16 step = v16_set(-u->step_size);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 mi = update_average(u->beta1, v16_load_n(slot[0] + i, count), gi);
        v16 vi = update_square(u->beta2, v16_load_n(slot[1] + i, count), gi);
        v16 top = v16_max(vi, v16_load_n(slot[2] + i, count));
        v16 root = v16_fma(v16_sqrt(top), root_scale, eps);
        v16_store_n(slot[0] + i, mi, count);
        v16_store_n(slot[1] + i, vi, count);
        v16_store_n(slot[2] + i, top, count);
        v16_store_n(p + i, v16_fma(step, v16_div(mi, root), v16_mul(pi, shrink)), count);
    }
}

static void kernel_nadam(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 eps = v16_set(u->eps), root_scale = v16_set(u->root_scale);
    v16 step = v16_set(-u->step_size), fresh = v16_set(-u->fresh_size);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 mi = update_average(u->beta1, v16_load_n(slot[0] + i, count), gi);
        v16 vi = update_square(u->beta2, v16_load_n(slot[1] + i, count), gi);
        v16 root = v16_fma(v16_sqrt(vi), root_scale, eps);
        v16_store_n(slot[0] + i, mi, count);
        v16_store_n(slot[1] + i, vi, count);
        v16_store_n(p + i, v16_add(pi, v16_div(v16_fma(fresh, gi, v16_mul(step, mi)), root)), count);
    }
}

static void kernel_adamax(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 beta2 = v16_set(u->beta2), eps = v16_set(u->eps), step = v16_set(-u->step_size);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 mi = update_average(u->beta1, v16_load_n(slot[0] + i, count), gi);
        v16 largest = v16_max(v16_mul(beta2, v16_load_n(slot[1] + i, count)), v16_add(v16_abs(gi), eps));
        v16_store_n(slot[0] + i, mi, count);
        v16_store_n(slot[1] + i, largest, count);
        v16_store_n(p + i, v16_fma(step, v16_div(mi, largest), pi), count);
    }
}

static void kernel_rmsprop(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 eps = v16_set(u->eps), momentum = v16_set(u->momentum), lr = v16_set(-u->lr);
    bp_real *velocity = u->momentum != 0 ? slot[1] : NULL, *mean = u->centered ? slot[velocity ? 2 : 1] : NULL;
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 vi = update_square(u->beta2, v16_load_n(slot[0] + i, count), gi), variance = vi;
        v16_store_n(slot[0] + i, vi, count);
        if (mean) { /* rounding may leave a variance below 0 */
            v16 mi = update_average(u->beta2, v16_load_n(mean + i, count), gi);
            variance = v16_max(v16_fma(v16_neg(mi), mi, vi), v16_zero());
            v16_store_n(mean + i, mi, count);
        }
        v16 step = v16_div(gi, v16_add(v16_sqrt(variance), eps));
        if (velocity) {
            step = flush(v16_fma(momentum, v16_load_n(velocity + i, count), step));
            v16_store_n(velocity + i, step, count);
        }
        v16_store_n(p + i, v16_fma(lr, step, pi), count);
    }
}

static void kernel_adagrad(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 eps = v16_set(u->eps), lr = v16_set(-u->lr), initial = v16_set(u->initial);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 sum = flush(v16_fma(gi, gi, u->first ? initial : v16_load_n(slot[0] + i, count)));
        v16_store_n(slot[0] + i, sum, count);
        v16_store_n(p + i, v16_fma(lr, v16_div(gi, v16_add(v16_sqrt(sum), eps)), pi), count);
    }
}

static void kernel_adadelta(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 eps = v16_set(u->eps), lr = v16_set(-u->lr);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = update_gradient(u, pi, v16_load_n(g + i, count));
        v16 vi = update_square(u->beta2, v16_load_n(slot[0] + i, count), gi), di = v16_load_n(slot[1] + i, count);
        v16 delta = v16_mul(v16_div(v16_sqrt(v16_add(di, eps)), v16_sqrt(v16_add(vi, eps))), gi);
        v16_store_n(slot[0] + i, vi, count);
        v16_store_n(slot[1] + i, update_square(u->beta2, di, delta), count);
        v16_store_n(p + i, v16_fma(lr, delta, pi), count);
    }
}

/* lamb's direction, from the moments as they are now */
V16_INLINE v16 lamb_direction(const struct bp_update *u, v16 p, v16 m, v16 v)
{
    v16 root = v16_fma(v16_sqrt(v), v16_set(u->root_scale), v16_set(u->eps));
    return v16_fma(v16_set(u->decay), p, v16_div(v16_mul(v16_set(u->step_size), m), root));
}

static double kernel_lamb_moments(size_t n, const struct bp_update *u, const bp_real *p, const bp_real *g,
                                  bp_real *const slot[])
{
    v16 grad_scale = v16_set(u->grad_scale);
    v16d sum = v16d_zero();
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 gi = v16_mul(grad_scale, v16_load_n(g + i, count));
        v16 mi = update_average(u->beta1, v16_load_n(slot[0] + i, count), gi);
        v16 vi = update_square(u->beta2, v16_load_n(slot[1] + i, count), gi);
        v16_store_n(slot[0] + i, mi, count);
        v16_store_n(slot[1] + i, vi, count);
        sum = v16d_add_squares(sum, lamb_direction(u, v16_load_n(p + i, count), mi, vi));
    }
    return v16d_sum(sum);
}

static void kernel_lamb(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 lr = v16_set(-u->lr);
    (void)g;
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), mi = v16_load_n(slot[0] + i, count);
        v16 direction = lamb_direction(u, pi, mi, v16_load_n(slot[1] + i, count));
        v16_store_n(p + i, v16_fma(lr, direction, pi), count);
    }
}

static void kernel_lion(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[])
{
    v16 grad_scale = v16_set(u->grad_scale), shrink = v16_set(u->shrink), lr = v16_set(-u->lr);
    v16 beta1 = v16_set(u->beta1), fresh1 = v16_set(1 - u->beta1);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count), gi = v16_mul(grad_scale, v16_load_n(g + i, count));
        v16 mi = v16_load_n(slot[0] + i, count), sign = update_sign(v16_fma(beta1, mi, v16_mul(fresh1, gi)));
        v16_store_n(slot[0] + i, update_average(u->beta2, mi, gi), count);
        v16_store_n(p + i, v16_fma(lr, sign, v16_mul(pi, shrink)), count);
    }
}

static void kernel_clip(size_t n, bp_real factor, bp_real limit, bp_real *x)
{
    v16 f = v16_set(factor), top = v16_set(limit), bottom = v16_set(-limit);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 xi = v16_mul(f, v16_load_n(x + i, count));
        v16_store_n(x + i, v16_max(bottom, v16_min(top, xi)), count); /* NaN stays: it is the second of each */
    }
}
