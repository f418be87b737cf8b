package vendor

import "testing"

func TestSpelling(t *testing.T) {
	tests := []struct {
		name           string
		spelling       spelling
		value, country string
		want           string
	}{
		{"canonical", plain, "new_york", "us", "new_york"},
		{"joined", spelling{}, "new_york", "us", "newyork"},
		{"plus", spelling{words: "+"}, "st_louis_park", "us", "st+louis+park"},
		{"title", spelling{words: " ", letters: lettersTitle}, "new_york", "us", "New York"},
		{"camel", spelling{letters: lettersTitle}, "new_york2b", "us", "NewYork2b"},
		{"upper", spelling{letters: lettersUpper}, "a1_b", "us", "A1B"},
		{"prefix", spelling{prefix: "_"}, "utah", "us", "us_utah"},
		{"name", spelling{lookup: lookupCountryNames, letters: lettersKeep, words: " "}, "ba", "", "Bosnia and Herzegovina"},
		{"name in title case", spelling{lookup: lookupCountryNames, letters: lettersTitle}, "ba", "", "BosniaAndHerzegovina"},
		{"name in lower case", spelling{lookup: lookupCountryNames, letters: lettersLower, words: "-"}, "us", "", "united-states"},
		{"code of a name", spelling{lookup: lookupUSCodes}, "newyork", "us", "ny"},
		{"code of a code", spelling{lookup: lookupUSCodes, letters: lettersUpper}, "ny", "", "NY"},
		{"name of a code", spelling{lookup: lookupUSNames, words: "+"}, "ny", "us", "new+york"},
		{"name elsewhere", spelling{lookup: lookupUSNames, words: "+"}, "nova_scotia", "ca", "nova+scotia"},
		{"alias", spelling{aliases: map[string]string{"gb": "uk"}, letters: lettersUpper}, "gb", "", "UK"},
		{"alias with a dash", spelling{aliases: map[string]string{"gb": "great-britain"}}, "gb", "", "great-britain"},
		{"alias before the table", spelling{lookup: lookupCountryNames, aliases: map[string]string{"cz": "Czechia"}}, "cz", "", "Czechia"},
		{"not in the table", spelling{lookup: lookupCountryNames}, "xx", "", ""},
		{"words without words", spelling{words: "+"}, "_a__b_", "us", "a+b"},
		{"nothing but separators", spelling{words: "+"}, "-;_.", "us", ""},
	}
	for _, tt := range tests {
		if got := string(tt.spelling.append(nil, tt.value, tt.country)); got != tt.want {
			t.Errorf("%s: %s is spelled %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
}
