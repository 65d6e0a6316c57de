# Reference numbers of Cox models, for tests/analytics/test_cox_against_r.py.
#
# Run in this folder: Rscript cox.R
# Made with R 4.2.2, survival 3.5-3, jsonlite 1.8.4.
suppressMessages(library(survival))
suppressMessages(library(jsonlite))

# Made-up records with many ties, late entries, case weights, strata and several records a patient.
set.seed(20)
n <- 180
made <- data.frame(
  id = sort(sample(1:110, n, replace = TRUE)), x = round(rnorm(n), 2), z = rbinom(n, 1, 0.4),
  ward = sample(c("a", "b", "c"), n, replace = TRUE), w = sample(c(0.5, 1, 2, 3.25), n, replace = TRUE)
)
risk <- exp(0.6 * made$x - 0.5 * made$z + 0.3 * (made$ward == "b"))
time <- ceiling(rexp(n, risk / 12)); stopped <- sample(3:30, n, replace = TRUE)
made$time <- pmin(time, stopped); made$event <- as.integer(time <= stopped)
made$start <- pmax(0, made$time - sample(1:15, n, replace = TRUE))

lung <- survival::lung
lung <- lung[complete.cases(lung[, c("inst", "time", "status", "age", "sex", "ph.ecog", "wt.loss")]), ]
lung$ecog <- factor(pmin(lung$ph.ecog, 2))
breast <- rbind(
  with(rotterdam, data.frame(study = "rotterdam", time = rtime, event = recur, age, meno, grade, nodes, pgr, er, hormon)),
  with(gbsg, data.frame(study = "gbsg", time = rfstime, event = status, age, meno, grade, nodes, pgr, er, hormon))
)
breast$grade <- pmin(pmax(breast$grade, 2), 3)
tight <- coxph.control(eps = 1e-13, toler.chol = 1e-14, iter.max = 100)

zph <- function(fit, transform) {
  found <- cox.zph(fit, transform = transform)$table
  list(statistic = unname(found[, 1]), df = unname(found[, 2]), p = unname(found[, 3]))
}
curve <- function(fit, profile, type = "log") {
  s <- summary(survfit(fit, newdata = profile, conf.type = type))
  list(time = s$time, survival = s$surv, low = s$lower, high = s$upper, hazard = s$cumhaz, error = s$std.err / s$surv)
}
report <- function(fit, profile = NULL) {
  out <- list(
    coefficients = unname(coef(fit)), covariance = unname(vcov(fit)), log_likelihood = fit$loglik, score = fit$score,
    wald = fit$wald.test, num_events = fit$nevent,
    concordance = unname(fit$concordance[c("concordance", "std")]), zph_km = zph(fit, "km"), zph_rank = zph(fit, "rank"),
    zph_identity = zph(fit, "identity"), zph_log = zph(fit, "log")
  )
  if (!is.null(fit$naive.var)) out$naive <- unname(fit$naive.var)
  if (!is.null(profile)) { out$curve <- curve(fit, profile); out$curve_log_log <- curve(fit, profile, "log-log") }
  out
}
one <- data.frame(x = 0.4, z = 1, ward = "b")
each <- function(data, ties) list(
  plain = report(coxph(Surv(time, event) ~ x + z + ward, data, ties = ties, control = tight), one),
  robust = report(coxph(Surv(time, event) ~ x + z + ward, data, ties = ties, robust = TRUE, control = tight), one),
  weighted = report(coxph(Surv(time, event) ~ x + z, data, ties = ties, weights = w, robust = TRUE, control = tight), one),
  entry = report(coxph(Surv(start, time, event) ~ x + z, data, ties = ties, control = tight), one),
  strata = report(coxph(Surv(time, event) ~ x + z + strata(ward), data, ties = ties, control = tight), one),
  all = report(coxph(
    Surv(start, time, event) ~ x + z + strata(ward) + cluster(id), data, ties = ties, weights = w, control = tight
  ), one)
)
penalised <- function(ties) {
  fit <- coxph(Surv(time, event) ~ ridge(x, z, theta = 7, scale = FALSE), made, ties = ties, control = tight)
  list(coefficients = unname(coef(fit)), sandwich = unname(fit$var2), log_likelihood = fit$loglik)
}
real <- list(
  lung = report(coxph(Surv(time, status) ~ age + sex + ecog, lung, control = tight),
    data.frame(age = 60, sex = 1, ecog = "1")),
  lung_sites = report(coxph(Surv(time, status) ~ age + sex + ecog + strata(inst), lung, control = tight)),
  lung_clusters = report(coxph(Surv(time, status) ~ age + sex + wt.loss + cluster(inst), lung, control = tight)),
  breast = report(coxph(Surv(time, event) ~ age + meno + grade + nodes + pgr + hormon, breast, control = tight)),
  breast_strata = report(
    coxph(Surv(time, event) ~ age + meno + grade + nodes + pgr + hormon + strata(study), breast, control = tight)
  )
)
answer <- list(
  made = as.list(made), efron = each(made, "efron"), breslow = each(made, "breslow"),
  ridge_efron = penalised("efron"), ridge_breslow = penalised("breslow"), real = real
)
writeLines(toJSON(answer, digits = NA, auto_unbox = TRUE), "cox.json")
