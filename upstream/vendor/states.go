package vendor

import "strings"

// stateTable are the states of the US, the district and the territories with their
// USPS codes.
const stateTable = `
al alabama
ak alaska
as american_samoa
az arizona
ar arkansas
ca california
co colorado
ct connecticut
de delaware
dc district_of_columbia
fl florida
ga georgia
gu guam
hi hawaii
id idaho
il illinois
in indiana
ia iowa
ks kansas
ky kentucky
la louisiana
me maine
md maryland
ma massachusetts
mi michigan
mn minnesota
ms mississippi
mo missouri
mt montana
ne nebraska
nv nevada
nh new_hampshire
nj new_jersey
nm new_mexico
ny new_york
nc north_carolina
nd north_dakota
mp northern_mariana_islands
oh ohio
ok oklahoma
or oregon
pa pennsylvania
pr puerto_rico
ri rhode_island
sc south_carolina
sd south_dakota
tn tennessee
tx texas
ut utah
vt vermont
va virginia
vi virgin_islands
wa washington
wv west_virginia
wi wisconsin
wy wyoming
`

type usState struct{ code, name string }

// usStates are the states by every way to write one: its code, its name, and its name
// without '_'.
var usStates = func() map[string]usState {
	m := make(map[string]usState)
	for line := range strings.Lines(strings.TrimSpace(stateTable)) {
		code, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		s := usState{code, name}
		m[code], m[name], m[strings.ReplaceAll(name, "_", "")] = s, s, s
	}
	return m
}()
