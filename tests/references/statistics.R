# Reference numbers of tests/analytics/test_contingency.py and test_compare_means.py, from base R's stats package.
# Run: Rscript tests/references/statistics.R > tests/references/statistics.json
tables <- array(c(12, 9, 7, 20, 15, 8, 6, 11, 19,
                  25, 14, 10, 13, 17, 21, 9, 10, 30,
                  8, 7, 16, 12, 22, 9, 14, 6, 18), c(3, 3, 3))
cmh <- mantelhaen.test(tables)
two <- array(c(12, 9, 20, 15, 25, 14, 13, 27, 8, 17, 12, 22), c(2, 2, 3))
mh <- mantelhaen.test(two, correct = FALSE)
exact <- fisher.test(two[, , 1])
values <- list(a = c(4.1, 5.3, 6.2, 5.8, 4.9, 6.6, 5.1), b = c(6.9, 7.4, 5.9, 8.1, 7.7, 6.3),
               c = c(5.5, 9.1, 4.2, 7.9, 10.3, 3.8, 6.4, 8.8))
long <- data.frame(y = unlist(values), g = factor(rep(names(values), lengths(values))))
fit <- aov(y ~ g, long)
tukey <- TukeyHSD(fit)$g
welch <- oneway.test(y ~ g, long)
kruskal <- kruskal.test(y ~ g, long)
bartlett <- bartlett.test(y ~ g, long)
pairwise <- pairwise.t.test(long$y, long$g, p.adjust.method = "holm", pool.sd = FALSE)$p.value
text <- function(x) paste0("[", paste(formatC(as.numeric(x), digits = 15, format = "g"), collapse = ", "), "]")
cat("{\n",
    '"r_version": "', R.version.string, '",\n',
    '"cmh": ', text(c(cmh$statistic, cmh$parameter, cmh$p.value)), ",\n",
    '"mh": ', text(c(mh$statistic, mh$p.value, mh$estimate, mh$conf.int)), ",\n",
    '"fisher": ', text(exact$p.value), ",\n",
    '"anova": ', text(unlist(summary(fit)[[1]][1, c("F value", "Pr(>F)")])), ",\n",
    '"welch": ', text(c(welch$statistic, welch$parameter, welch$p.value)), ",\n",
    '"kruskal": ', text(c(kruskal$statistic, kruskal$p.value)), ",\n",
    '"bartlett": ', text(c(bartlett$statistic, bartlett$p.value)), ",\n",
    '"tukey": [', paste(apply(tukey, 1, text), collapse = ", "), "],\n",
    '"holm": ', text(c(pairwise[1, 1], pairwise[2, 1], pairwise[2, 2])), "\n}\n", sep = "")
