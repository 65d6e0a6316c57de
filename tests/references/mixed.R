# Reference numbers of mixed models, for tests/analytics/test_mixed.py. The data are drawn here.
#
# Run in this folder: Rscript mixed.R
# Made with R 4.2.2, lme4 1.1-31, nlme 3.1-162, jsonlite 1.8.4.
suppressMessages({library(lme4); library(jsonlite)})

set.seed(20)
sizes <- c(40, 25, 60, 1, 33, 48, 17, 56)
site <- rep(seq_along(sizes), sizes)
n <- length(site)
age <- round(rnorm(n, 60 + 2 * site, 10), 1)
male <- rbinom(n, 1, 0.5)
stay <- round(runif(n, 0.5, 3), 2)
intercepts <- rnorm(8, 0, 0.8)[site]
slopes <- rnorm(8, 0, 0.03)[site]
score <- round(50 + (0.2 + slopes) * age + 2 * male + 4 * intercepts + rnorm(n, 0, 3), 2)
died <- rbinom(n, 1, plogis(-3 + (0.04 + 0.8 * slopes) * age + 0.6 * male + intercepts))
falls <- rpois(n, stay * exp(-1.5 + (0.02 + 0.3 * slopes) * age + 0.5 * intercepts))
alike <- round(10 + 0.1 * age + rnorm(n), 2)
for (s in unique(site)) alike[site == s] <- round(alike[site == s] - mean(alike[site == s] - 0.1 * age[site == s]), 4)
gain <- round(20 + (0.3 + rnorm(8, 0, 0.2)[site]) * (age - 60) - male + 5 * rnorm(8)[site] + rnorm(n, 0, 4), 2)
data <- data.frame(site, age, male, stay, score, died, falls, alike, gain)

# Derivatives of a deviance by differences of sixth order, and Newton's iteration to where they are zero.
slope <- function(f, x, k, h = 2e-3) {
  at <- function(m) f(replace(x, k, x[k] + m * h))
  (45 * (at(1) - at(-1)) - 9 * (at(2) - at(-2)) + (at(3) - at(-3))) / (60 * h)
}
bend <- function(f, x, j, k, h = 2e-2) slope(function(y) slope(f, y, j, h), x, k, h)
hessian <- function(f, x) {
  full <- outer(seq_along(x), seq_along(x), Vectorize(function(j, k) bend(f, x, j, k)))
  (full + t(full)) / 2
}
polished <- function(f, x) {
  scale <- hessian(f, x)
  for (i in 1:12) x <- x - solve(scale, sapply(seq_along(x), function(k) slope(f, x, k)))
  x
}

linear <- function(name, formula, restricted, is_singular = FALSE) {
  parts <- lFormula(formula, data, REML = restricted)
  f <- do.call(mkLmerDevfun, parts)
  start <- nloptwrap(rep(0.5, length(parts$reTrms$theta)), f, parts$reTrms$lower, rep(Inf, length(parts$reTrms$theta)))$par
  theta <- if (is_singular) rep(0, length(start)) else polished(f, start)
  value <- f(theta)
  fit <- mkMerMod(environment(f), list(par = theta, fval = value, conv = 0), parts$reTrms, fr = parts$fr)
  modes <- ranef(fit, condVar = TRUE)$site
  list(
    name = name, method = if (restricted) "REML" else "ML", theta = theta, deviance = value,
    coefficients = fixef(fit), errors = sqrt(diag(as.matrix(vcov(fit)))), sigma = sigma(fit),
    covariance = matrix(unlist(VarCorr(fit)$site), length(modes)), log_likelihood = as.numeric(logLik(fit)),
    modes = as.matrix(modes), mode_variances = diag(as.matrix(attr(modes, "postVar")[, , 1])),
    at_half = if (length(theta) == 1) f(0.5) else NULL
  )
}

# In units of their own size, in which the iteration is well conditioned; the intercept is at age 60.
data$age10 <- (data$age - 60) / 10
integral <- function(name, formula, family, points) {
  tight <- glmerControl(optimizer = "bobyqa", optCtrl = list(maxfun = 1e5), tolPwrss = 1e-14)
  fit <- glmer(formula, data, family, nAGQ = points, control = tight)
  f <- glmer(formula, data, family, nAGQ = points, control = tight, devFunOnly = TRUE)
  num_theta <- length(getME(fit, "theta"))
  whole <- polished(f, c(getME(fit, "theta"), fixef(fit)))
  covariance <- 2 * solve(hessian(f, whole))
  fixed <- -seq_len(num_theta)
  list(
    name = name, method = paste("points", points), theta = whole[-fixed], deviance = f(whole), coefficients = whole[fixed],
    errors = sqrt(diag(covariance))[fixed], modes = as.matrix(ranef(fit)$site)
  )
}

profile_interval <- function(formula) {
  fit <- lmer(formula, data, REML = FALSE, control = lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-12)))
  found <- confint(fit, method = "profile", devtol = 1e-6, quiet = TRUE)
  unname(found[".sig01", ])
}

in_nlme <- function(formula) {
  tight <- nlme::lmeControl(tolerance = 1e-10, msTol = 1e-12, opt = "optim", reltol = 1e-14)
  fit <- nlme::lme(formula, data, random = ~ 1 | site, method = "REML", control = tight)
  found <- nlme::intervals(fit, which = "var-cov")
  list(site = as.numeric(found$reStruct$site), residual = as.numeric(found$sigma))
}

cases <- list(
  linear("intercept", score ~ age + male + (1 | site), TRUE),
  linear("intercept", score ~ age + male + (1 | site), FALSE),
  linear("slope", score ~ age10 + male + (1 + age10 | site), TRUE),
  linear("slope", score ~ age10 + male + (1 + age10 | site), FALSE),
  linear("own slopes", gain ~ age10 + male + (1 + age10 | site), TRUE),
  linear("own slopes", gain ~ age10 + male + (1 + age10 | site), FALSE),
  linear("alike", alike ~ age + (1 | site), TRUE, is_singular = TRUE),
  linear("alike", alike ~ age + (1 | site), FALSE, is_singular = TRUE),
  integral("logistic", died ~ age10 + male + (1 | site), binomial, 1),
  integral("logistic", died ~ age10 + male + (1 | site), binomial, 9),
  integral("logistic", died ~ age10 + male + (1 | site), binomial, 25),
  integral("logistic slope", died ~ age10 + male + (1 + age10 | site), binomial, 1),
  integral("poisson", falls ~ age10 + male + offset(log(stay)) + (1 | site), poisson, 1),
  integral("poisson", falls ~ age10 + male + offset(log(stay)) + (1 | site), poisson, 11)
)
writeLines(toJSON(list(
  data = as.list(data), cases = cases, nlme = in_nlme(score ~ age + male),
  profile = profile_interval(score ~ age + male + (1 | site))
), digits = 15, auto_unbox = TRUE, na = "null", pretty = 1), "mixed.json")
