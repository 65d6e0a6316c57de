# Reference numbers for multiple imputation: Rubin's rules (mice::pool.scalar, mice::D1), and mice itself on the heart
# disease data of the UCI repository (four hospitals) and on survival's lung data, whose estimates vary by the draws.
#
# Run in this folder:  Rscript imputation.R FOLDER_OF_HEART_DATA > imputation.json
# Made with R 4.2.2, mice 3.15.0, survival 3.5-3, jsonlite 1.8.4.
suppressPackageStartupMessages({library(mice); library(jsonlite)})

set.seed(1)
q <- matrix(rnorm(15, c(1, -2, 0.3), 0.4), 5, 3, byrow = TRUE)
u <- matrix(runif(15, 0.05, 0.4), 5, 3)
scalar <- lapply(1:3, function(j) {
  p <- pool.scalar(q[, j], u[, j], n = 60, k = 3)
  list(estimate = p$qbar, variance = p$t, df = p$df, fmi = p$fmi, lambda = (p$b + p$b / 5) / p$t, r = p$r)
})

data(nhanes)
imp <- mice(nhanes, m = 7, maxit = 5, seed = 3, printFlag = FALSE)
full <- with(imp, lm(chl ~ age + bmi + hyp))
less <- with(imp, lm(chl ~ age))
d1 <- D1(full, less, dfcom = 1e12)
fits <- getfit(full)
joint <- list(
  estimates = t(sapply(fits, coef)),
  covariances = lapply(fits, function(f) unname(vcov(f))),
  statistic = unname(d1$result[1, "F.value"]), p = unname(d1$result[1, "P(>F)"]),
  df = unname(d1$result[1, "df2"])
)

folder <- commandArgs(trailingOnly = TRUE)[1]
columns <- c("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca",
             "thal", "num")
files <- file.path(folder, paste0("processed.", c("cleveland", "hungarian", "switzerland", "va"), ".data"))
heart <- do.call(rbind, lapply(files, read.csv, header = FALSE, na.strings = "?", col.names = columns))
heart$chol[heart$chol %in% 0] <- NA
heart$trestbps[heart$trestbps %in% 0] <- NA
heart$disease <- as.integer(heart$num > 0)
used <- heart[, c("disease", "age", "sex", "chol", "thalach", "exang", "oldpeak")]
used$exang <- factor(used$exang)
method <- c("", "", "", "norm", "norm", "logreg", "norm")
imp <- mice(used, m = 200, maxit = 10, method = method, seed = 11, printFlag = FALSE)
fit <- summary(pool(with(imp, glm(disease ~ age + sex + chol + thalach + exang + oldpeak, family = binomial))))
lung <- survival::lung
lung$hazard <- nelsonaalen(lung, time, status)
used <- lung[, c("time", "status", "hazard", "age", "sex", "ph.ecog", "wt.loss", "meal.cal")]
predictors <- make.predictorMatrix(used)
predictors[, "time"] <- 0
method <- c(rep("", 5), rep("norm", 3))
imp <- mice(used, m = 300, maxit = 10, method = method, predictorMatrix = predictors, seed = 7, printFlag = FALSE)
cox <- summary(pool(with(imp, survival::coxph(survival::Surv(time, status) ~ age + sex + ph.ecog + wt.loss + meal.cal))))
cat(toJSON(list(
  q = q, u = u, scalar = scalar, joint = joint,
  heart = list(term = as.character(fit$term), estimate = fit$estimate, std_error = fit$std.error),
  lung = list(term = as.character(cox$term), estimate = cox$estimate, std_error = cox$std.error, df = cox$df)
), digits = NA, auto_unbox = TRUE))
