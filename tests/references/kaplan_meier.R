# Reference outputs for survival curves, log-rank tests, restricted means, cumulative incidences and Gray's test.
#
# Run in the repository's root: Rscript tests/references/kaplan_meier.R > tests/references/kaplan_meier.json
# Needs the packages survival (data sets lung, rotterdam, gbsg, mgus2), cmprsk and jsonlite; made with the versions
# that the output names. Numbers only; the data sets themselves are not stored.
suppressPackageStartupMessages({library(survival); library(cmprsk); library(jsonlite)})

curves <- function(fit, ...) {
  s <- summary(fit, censored = TRUE, ...)
  strata <- if (is.null(s$strata)) rep("all", length(s$time)) else sub(".*=", "", as.character(s$strata))
  q <- quantile(fit, c(0.25, 0.5, 0.75))
  rows <- function(x) if (is.matrix(x)) unname(split(x, row(x))) else list(unname(x))
  list(group = strata, time = s$time, n_risk = s$n.risk, n_event = s$n.event, n_censor = s$n.censor, surv = s$surv,
       std_err = s$std.err, lower = s$lower, upper = s$upper, cumhaz = s$cumhaz, std_chaz = s$std.chaz,
       quantile = rows(q$quantile), quantile_lower = rows(q$lower), quantile_upper = rows(q$upper))
}
tested <- function(fit) list(n = as.vector(fit$n), observed = fit$obs, expected = fit$exp, variance = fit$var,
                             chisq = fit$chisq, df = length(fit$n) - 1)
means <- function(fit, at) {
  t <- summary(fit, rmean = at)$table
  t <- if (is.matrix(t)) t else t(t)
  list(rmean = unname(t[, "rmean"]), se = unname(t[, "se(rmean)"]))
}

lung <- survival::lung[!is.na(survival::lung$inst), ]
out <- list(versions = list(R = R.version.string, survival = as.character(packageVersion("survival")),
                            cmprsk = as.character(packageVersion("cmprsk"))))
for (type in c("log-log", "log", "plain"))
  out[[paste0("lung_", type)]] <- curves(survfit(Surv(time, status) ~ 1, lung, conf.type = type))
out$lung_sex <- curves(survfit(Surv(time, status) ~ sex, lung, conf.type = "log-log"))
out$lung_90 <- curves(survfit(Surv(time, status) ~ sex, lung, conf.type = "log", conf.int = 0.9))
out$lung_means <- means(survfit(Surv(time, status) ~ sex, lung), 500)
out$test_sex <- tested(survdiff(Surv(time, status) ~ sex, lung))
out$test_sex_rho <- tested(survdiff(Surv(time, status) ~ sex, lung, rho = 1))
ecog <- lung[!is.na(lung$ph.ecog), ]
out$test_ecog <- tested(survdiff(Surv(time, status) ~ ph.ecog, ecog))
by_site <- survdiff(Surv(time, status) ~ sex + strata(inst), lung)
out$test_sex_inst <- list(chisq = by_site$chisq, observed = rowSums(by_site$obs), expected = rowSums(by_site$exp))
by_ecog <- survdiff(Surv(time, status) ~ sex + strata(ph.ecog), ecog)
out$test_sex_ecog <- list(chisq = by_ecog$chisq, observed = rowSums(by_ecog$obs), expected = rowSums(by_ecog$exp))

# Case weights that are whole numbers count as so many records.
out$lung_weights <- curves(survfit(Surv(time, status) ~ sex, lung, weights = 1 + (lung$age %% 3), conf.type = "log-log"))

# Weights that are no whole numbers have R's robust errors.
robust <- survfit(Surv(time, status) ~ sex, lung, weights = lung$age / 60, conf.type = "log-log")
out$lung_robust <- curves(robust)
out$lung_robust_means <- means(robust, 500)

# Left truncation: a start that depends on the record alone.
late <- lung
late$start <- pmin(late$time - 1, (late$age * 7) %% 90)
out$lung_entry <- curves(survfit(Surv(start, time, status) ~ sex, late, conf.type = "log-log"))

# Two trials in two countries.
two <- rbind(data.frame(time = ceiling(rotterdam$rtime), event = rotterdam$recur, hormone = rotterdam$hormon),
             data.frame(time = gbsg$rfstime, event = gbsg$status, hormone = gbsg$hormon))
two$trial <- rep(c("rotterdam", "gbsg"), c(nrow(rotterdam), nrow(gbsg)))
fit <- survfit(Surv(time, event) ~ hormone, two, conf.type = "log-log")
at <- summary(fit, times = c(365, 730, 1825))
out$two <- list(surv = at$surv, std_err = at$std.err, lower = at$lower, upper = at$upper,
                n_risk_after = summary(fit, times = c(365.5, 730.5, 1825.5))$n.risk, means = means(fit, 1825))
out$test_two <- tested(survdiff(Surv(time, event) ~ hormone, two))
strat <- survdiff(Surv(time, event) ~ hormone + strata(trial), two)
out$test_two_strata <- list(chisq = strat$chisq, observed = rowSums(strat$obs), expected = rowSums(strat$exp))

# Competing risks: progression to a plasma cell malignancy (1) or death without it (2), 0 censored.
m <- mgus2
m$etime <- ifelse(m$pstat == 0, m$futime, m$ptime)
m$cause <- ifelse(m$pstat == 0, 2 * m$death, 1)
state <- factor(m$cause, 0:2, c("censored", "malignancy", "death"))
incidence <- function(fit) {
  s <- summary(fit, censored = TRUE)
  strata <- if (is.null(s$strata)) rep("all", length(s$time)) else sub(".*=", "", as.character(s$strata))
  list(group = strata, time = s$time, pstate = s$pstate[, -1], std_err = s$std.err[, -1], lower = s$lower[, -1],
       upper = s$upper[, -1])
}
for (type in c("log-log", "log", "plain"))
  out[[paste0("mgus2_", type)]] <- incidence(survfit(Surv(m$etime, state) ~ 1, conf.type = type))
out$mgus2_sex <- incidence(survfit(Surv(m$etime, state) ~ m$sex, conf.type = "log-log"))
g <- cuminc(m$etime, m$cause, m$sex)
out$gray_sex <- unname(split(g$Tests, row(g$Tests)))
third <- cut(m$age, c(0, 60, 70, 80, 120), c("a", "b", "c", "d"))
out$gray_age <- unname(split(cuminc(m$etime, m$cause, third)$Tests, 1:2))
out$gray_age_rho <- unname(split(cuminc(m$etime, m$cause, third, rho = 1)$Tests, 1:2))
out$gray_age_strata <- unname(split(cuminc(m$etime, m$cause, third, m$sex)$Tests, 1:2))
cat(toJSON(out, digits = I(11), auto_unbox = TRUE, na = "null"), "\n")
