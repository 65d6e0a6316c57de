# Reference numbers of meta-analyses, for tests/analytics/test_meta_analysis_combine.py.
#
# Run in this folder: Rscript meta_analysis.R
# Made with R 4.2.2, metafor 3.8-1, jsonlite 1.8.4.
suppressMessages(library(metafor))
suppressMessages(library(jsonlite))

bcg <- escalc(measure = "RR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = dat.bcg)
sets <- list(
  bcg = list(yi = as.numeric(bcg$yi), sei = sqrt(as.numeric(bcg$vi))),
  alike = list(yi = c(0.31, 0.28, 0.35, 0.30, 0.27), sei = c(0.10, 0.08, 0.15, 0.20, 0.12)),
  two = list(yi = c(0.10, 0.90), sei = c(0.20, 0.25)),
  four = list(yi = c(0.80, 0.35, 1.20, 0.55), sei = c(0.21, 0.16, 0.40, 0.33))
)
tight <- list(threshold = 1e-15, maxiter = 10000, tol = 1e-15, tau2.max = 1000)

pooled <- function(yi, sei, method, test) {
  fit <- rma(yi, sei^2, method = method, test = test, control = tight)
  k <- length(yi)
  out <- list(
    estimate = as.numeric(fit$beta), se = fit$se, statistic = fit$zval, p = fit$pval,
    low = fit$ci.lb, high = fit$ci.ub, q = fit$QE, q_p = fit$QEp,
    tau2 = fit$tau2, i2 = fit$I2 / 100, h2 = fit$H2, weights = as.numeric(weights(fit)) / 100
  )
  if (method != "FE") {
    ci <- confint(fit, control = list(tol = 1e-14, maxiter = 10000, tau2.max = 1000))$random
    out$tau2_low <- ci["tau^2", "ci.lb"]; out$tau2_high <- ci["tau^2", "ci.ub"]
    out$i2_low <- ci["I^2(%)", "ci.lb"] / 100; out$i2_high <- ci["I^2(%)", "ci.ub"] / 100
    if (k > 2) {
      # The interval of Higgins, Thompson & Spiegelhalter (2009): t with k - 2 degrees of freedom.
      around <- predict(fit, pi.type = "riley")
      out$predicted <- c(around$pi.lb, around$pi.ub)
      left <- lapply(seq_len(k), function(i) {
        one <- rma(yi[-i], sei[-i]^2, method = method, test = test, control = tight)
        c(as.numeric(one$beta), one$se, one$ci.lb, one$ci.ub, one$tau2, one$QE)
      })
      out$without <- do.call(rbind, left)
    }
  }
  out
}

cases <- list()
for (name in names(sets)) for (method in c("FE", "DL", "REML", "ML", "PM", "EB")) for (test in c("z", "knha")) {
  if (method == "FE" && test == "knha") next
  made <- pooled(sets[[name]]$yi, sets[[name]]$sei, method, test)
  cases[[length(cases) + 1]] <- c(list(set = name, method = method, test = test), made)
}
writeLines(toJSON(list(sets = sets, cases = cases), digits = 15, auto_unbox = TRUE, na = "null", pretty = 1), "meta_analysis.json")
