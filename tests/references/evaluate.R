# Reference numbers of the evaluation of a prediction model, for tests/analytics/test_evaluate_against_r.py.
#
# Run in this folder: Rscript evaluate.R
# Made with R 4.2.2, pROC 1.18.0, rms 6.5-0, jsonlite 1.8.4.
suppressMessages({library(pROC); library(rms); library(jsonlite)})

set.seed(5)
n <- 600
age <- sample(30:80, n, replace = TRUE)
sex <- sample(c("F", "M"), n, replace = TRUE)
p <- plogis(-5 + 0.07 * age + 0.4 * (sex == "M"))
died <- rbinom(n, 1, plogis(0.3 + 0.7 * qlogis(p)))
site <- sample(1:4, n, replace = TRUE)

curve <- function(y, x) roc(y, x, levels = c(0, 1), direction = "<", quiet = TRUE)
whole <- curve(died, p)
female <- curve(died[sex == "F"], p[sex == "F"])
male <- curve(died[sex == "M"], p[sex == "M"])
apart <- roc.test(male, female, method = "delong", paired = FALSE)
judged <- val.prob(p, died, pl = FALSE)
at <- coords(whole, c(0.3, 0.5), input = "threshold", transpose = FALSE,
             ret = c("sensitivity", "specificity", "ppv", "npv"))
large <- glm(died ~ 1, offset = qlogis(p), family = binomial, control = glm.control(epsilon = 1e-14))

write_json(list(
  records = list(age = age, sex = sex, died = died, site = site),
  auc = as.numeric(whole$auc), variance = var(whole),
  auc_female = as.numeric(female$auc), auc_male = as.numeric(male$auc),
  difference_statistic = unname(apart$statistic),
  brier = unname(judged["Brier"]), intercept = unname(judged["Intercept"]), slope = unname(judged["Slope"]),
  u_p = unname(judged["U:p"]), spiegelhalter_z = unname(judged["S:z"]), spiegelhalter_p = unname(judged["S:p"]),
  in_the_large = unname(coef(large)), in_the_large_error = sqrt(vcov(large)[1, 1]),
  thresholds = c(0.3, 0.5), at = at
), "evaluate.json", auto_unbox = TRUE, digits = NA)
